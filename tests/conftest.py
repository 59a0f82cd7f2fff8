"""Examples of property tests are the same in every run, and no test fails for a slow machine."""

from hypothesis import settings

settings.register_profile("sfumato", derandomize=True, deadline=None)
settings.load_profile("sfumato")
