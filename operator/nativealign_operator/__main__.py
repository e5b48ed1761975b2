import sys

from nativealign_operator.main import main

sys.exit(main())
