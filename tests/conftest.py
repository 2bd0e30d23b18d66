"""What all tests share: how hard hypothesis tries. ``--hypothesis-profile=deep`` (or the variable) before a release."""

import os

from hypothesis import settings

settings.register_profile("fast", max_examples=200, stateful_step_count=30, deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=5_000, stateful_step_count=60, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
