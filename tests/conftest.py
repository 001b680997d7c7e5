"""What all tests share: how hypothesis runs, and that nodes do not fight for one port."""

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

# A node serves its control API on one port by default, and several tests run nodes at a time.
os.environ.setdefault("TANDEM__CONTROL__LISTEN", "[]")
