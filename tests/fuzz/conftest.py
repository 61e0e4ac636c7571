"""Fuzz targets in a test run: few examples, the same every time; `python -m tests.fuzz` makes as many as it can."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "steady",
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("steady")
