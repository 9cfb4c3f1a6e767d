"""How property tests choose their examples: always the same ones in `just check`, so that what is red there is red again; others
each time in a run of one's own, and many of them with `just explore`."""

from hypothesis import HealthCheck, settings

settings.register_profile("daily", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("check", settings.get_profile("daily"), derandomize=True, database=None)
settings.load_profile("daily")
