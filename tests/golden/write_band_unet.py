"""Write band_unet.npz: what the U-Net of bands computes as it was first trained, for tests/exact/test_band_unet.py.

python tests/golden/write_band_unet.py

Written before pictures could be given beside the noisy one: models trained since then must stay what they are. The
weights are a function of their names.
"""

# ruff: noqa: T201
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from sfumato.networks import band_unet


def main():
    """Run the network on given weights."""
    sys.path[:0] = [str(Path(__file__).parent.parent / "exact")]
    tests = importlib.import_module("test_band_unet")
    network = band_unet.BandUNet(band_unet.Config(**tests.SHAPE)).eval()
    names = {name: list(value.shape) for name, value in network.state_dict().items()}
    tests.fill(network)
    with torch.no_grad():
        out = network(*tests.inputs())
    path = Path(__file__).with_name("band_unet.npz")
    np.savez_compressed(path, names=json.dumps(names), out=out)
    print(out.std(), path.stat().st_size)


if __name__ == "__main__":
    main()
