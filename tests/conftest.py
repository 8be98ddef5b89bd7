"""For all tests: a random example has no deadline of its own, which a busy machine would miss."""

from hypothesis import settings

settings.register_profile("nightvault", deadline=None)
settings.load_profile("nightvault")
