"""Shared by all tiers."""

from hypothesis import settings

# A slow machine is no defect, so no example has a deadline
settings.register_profile("nativealign", deadline=None, print_blob=True)
settings.load_profile("nativealign")
