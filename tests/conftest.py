"""Examples of property tests are the same in every run, and no test fails for a slow machine or for what ran before."""

import torch
from hypothesis import settings

settings.register_profile("sfumato", derandomize=True, deadline=None)
settings.load_profile("sfumato")

# torch looks up once which functions a device in a `with` statement holds for. transformers puts its own linspace in
# that place while it reads a model, so were that the first time, the true one would be left out for good.
with torch.device("meta"):
    torch.linspace(0, 1, 2)
