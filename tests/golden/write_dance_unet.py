"""Write dance_unet.npz: what Dance Diffusion's published network computes, for tests/equivalence/test_dance_unet.py.

python tests/golden/write_dance_unet.py CHECKOUT

CHECKOUT is a clone of github.com/Harmonai-org/sample-generator. Of it only audio_diffusion/models.py and what that
imports are read. The weights are a function of their names, so that only names and results need to be kept.
"""

# ruff: noqa: T201
import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch


def main():
    """Run the published network on given weights."""
    sys.path[:0] = [sys.argv[1], str(Path(__file__).parent.parent / "equivalence")]
    build = importlib.import_module("audio_diffusion.models").DiffusionAttnUnet1D
    weights_of = importlib.import_module("test_dance_unet").golden_weights
    options = types.SimpleNamespace(latent_dim=0)
    network = build(options, io_channels=2, depth=5, n_attn_layers=1, c_mults=[32, 32, 64, 64, 96]).eval()
    names = {name: list(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(weights_of(names))
    generator = torch.Generator().manual_seed(3)
    x, time = torch.randn(2, 2, 128, generator=generator), torch.tensor([0.15, 0.8])
    with torch.no_grad():
        v = network(x, time)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in build(options, io_channels=2, n_attn_layers=4).parameters())
    path = Path(__file__).with_name("dance_unet.npz")
    np.savez_compressed(path, names=json.dumps(names), x=x, time=time, v=v, published_weights=count)
    print(count, v.std(), path.stat().st_size)


if __name__ == "__main__":
    main()
