"""What all tests share: how hypothesis runs."""

import os

from hypothesis import HealthCheck, settings

# Speed is not judged: the machine may be busy. In CI every run draws the same examples, so that a
# failure is the change's own; elsewhere each run draws new ones.
settings.register_profile(
    "tandem",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("tandem")
