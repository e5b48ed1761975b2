"""Shared by all tiers."""

import signal

from hypothesis import settings

# A slow machine is no defect, so no example has a deadline
settings.register_profile("nativealign", deadline=None, print_blob=True)
settings.load_profile("nativealign")

# A shell starts what it puts into the background with SIGINT ignored, and so it would be in every process that a test interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
