"""Write cqt.npz: what the published code of CQT-Diff+ computes, for tests/equivalence/test_cqt.py to compare with.

python tests/golden/write_cqt.py CHECKOUT             writes tests/golden/cqt.npz
python tests/golden/write_cqt.py CHECKOUT --published one evaluation at the published size, beside ours

CHECKOUT is a clone of github.com/eloimoliner/audio-inpainting-diffusion. Its requirements cqt-nsgt-pytorch 0.0.10,
einops and tqdm must be importable (PYTHONPATH). torchaudio is imported there but not used here.
"""

# ruff: noqa: T201
import argparse
import contextlib
import importlib
import io
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch

TINY = {
    "sample_rate": 22050,
    "n_samples": 2048,
    "bins_per_octave": 8,
    "widths": [8, 8, 16],
    "dilations": [1, 2, 2],
    "attention": [False, False, True, True],
    "heads": 2,
    "embedding": 16,
}
LARGE = {"22k": (7, 64, 22050, 184184), "44k": (8, 64, 44100, 184184)}
STEPS, FADE, GAP = 4, 20, (900, 1100)


def main():
    """Run the published code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--published", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(options.checkout))
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    mend_clip(importlib.import_module("cqt_nsgt_pytorch.nsgfwin"))
    if options.published:
        compare_published()
        return
    arrays = tiny_arrays()
    for name, shape in LARGE.items():
        arrays |= large_arrays(name, *shape)
    np.savez_compressed(Path(__file__).with_name("cqt.npz"), **arrays)
    print({key: value.shape for key, value in arrays.items()})


def mend_clip(module):
    """Newer NumPy refuses np.clip of whole numbers by infinity; give that module a clip that does what it meant."""
    own = types.ModuleType("numpy")
    own.__dict__.update(vars(np))
    own.clip = lambda a, low, high, out: np.maximum(a, low, out=out)
    module.np = own


def tree(values):
    """Nested dictionaries as objects with attributes."""
    return types.SimpleNamespace(**{k: tree(v) if isinstance(v, dict) else v for k, v in values.items()})


def arguments(config):
    """The published code's configuration for ours."""
    noise = {"sigma_min": 1e-4, "sigma_max": 1.0, "ro": 13, "ro_train": 13, "sigma_data": 0.063}
    noise |= {"Schurn": 10, "Stmin": 0, "Stmax": 50, "Snoise": 1, "P_mean": -1.2, "P_std": 1.2}
    return tree(
        {
            "exp": {"sample_rate": config["sample_rate"], "audio_len": config["n_samples"]},
            "network": {
                "use_fencoding": False,
                "use_norm": True,
                "emb_dim": config["embedding"],
                "Ns": config["widths"],
                "Ss": [],
                "num_dils": config["dilations"],
                "attention_layers": [int(flag) for flag in config["attention"]],
                "attention_dict": {"num_heads": config["heads"], "bias_qkv": False, "use_rel_pos": False},
                "bottleneck_type": "res_dil_convs",
                "num_bottleneck_layers": 1,
                "cqt": {
                    "window": "kaiser",
                    "beta": 1,
                    "num_octs": len(config["widths"]),
                    "bins_per_oct": config["bins_per_octave"],
                },
            },
            "diff_params": {**noise, "aweighting": {"use_aweighting": False}},
            "tester": {
                "T": STEPS,
                "order": 2,
                "filter_out_cqt_DC_Nyq": True,
                "posterior_sampling": {"xi": 0.25, "norm": 2},
                "data_consistency": {"use": True, "type": "always", "smooth": True, "hann_size": FADE},
                "diff_params": {"same_as_training": False, **noise},
            },
        }
    )


def network_of(config):
    """The published network with random weights at which every part matters, exact in float16."""
    module = importlib.import_module("networks.unet_cqt_oct_with_projattention_adaLN_2")
    with contextlib.redirect_stdout(io.StringIO()):
        network = module.Unet_CQT_oct_with_attention(arguments(config), "cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if key.endswith("kernel"):
                continue
            random = torch.randn(value.shape, generator=generator)
            if "gamma" in key:
                random = 1 + 0.3 * random
            elif key.endswith("weight"):
                random = random / value[0].numel() ** 0.5
            value.copy_(random.half().float())
    return network


def tiny_arrays():
    """Transform, network and a whole inpainting, small."""
    n = TINY["n_samples"]
    network = network_of(TINY)
    arrays = {f"weight/{key}": half(value) for key, value in network.state_dict().items()}
    rng = np.random.default_rng(0)

    def normal(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float16)).float()

    x, c_noise = normal(2, n), torch.tensor([-0.7, 0.3])
    octaves = network.CQTransform.fwd(x[:1, None])
    arrays |= {f"octave/{i}": octave[:, 0].numpy() for i, octave in enumerate(octaves)}
    inverse = network.CQTransform.bwd([1j * octave.flip(-1) for octave in octaves])[:, 0]
    covered = network.CQTransform.apply_hpf_DC(x[:1])
    with torch.no_grad():
        y = network(x.clone(), c_noise[:, None])
    arrays |= {"x": half(x), "c_noise": c_noise.numpy(), "y": y.numpy()}
    arrays |= {"inverse": inverse.numpy(), "covered": covered.numpy()}

    known = torch.ones(1, n)
    known[:, slice(*GAP)] = 0
    clip = normal(1, n) / 8
    draws = [normal(1, n) for _ in range(STEPS + 1)]
    queue = list(draws)
    args = arguments(TINY)
    sampler_module = importlib.import_module("testing.edm_sampler_inpainting")
    sampler_module.tqdm = lambda steps: steps
    sampler = sampler_module.Sampler(network, importlib.import_module("diff_params.edm").EDM(args), args)
    randn = torch.randn
    torch.randn = lambda shape: queue.pop(0)  # the start, then one per step
    try:
        filled = sampler.predict_inpainting(clip * known, known)
    finally:
        torch.randn = randn
    assert not queue
    arrays |= {"clip": half(clip), "noise": half(torch.stack(draws)), "filled": filled.numpy()}
    return arrays


def half(x):
    """`x`, which float16 holds exactly, in half the space."""
    return x.numpy().astype(np.float16)


def broadband(n_samples):
    """A signal with energy at all frequencies, the same on every machine."""
    return torch.from_numpy(np.cos(0.3 * (np.arange(n_samples) % 1009) ** 2.0).astype(np.float32))[None]


def large_arrays(name, n_octaves, bins, rate, n_samples):
    """A few numbers of the transform at a published size."""
    module = importlib.import_module("cqt_nsgt_pytorch.CQT_nsgt")
    with contextlib.redirect_stdout(io.StringIO()):
        transform = module.CQT_nsgt(
            n_octaves, bins, mode="oct", window=("kaiser", 1), fs=rate, audio_len=n_samples, dtype=torch.float32
        )
    x = broadband(n_samples)
    octaves = [octave[:, 0] for octave in transform.fwd(x[:, None])]
    arrays = {f"{name}/{i}": octave[0, ::9, :: octave.shape[-1] // 8].numpy() for i, octave in enumerate(octaves)}
    turned = [1j * octave.flip(-1)[:, None] for octave in octaves]
    arrays[f"{name}/inverse"] = transform.bwd(turned)[0, 0, ::997].numpy()
    arrays[f"{name}/covered"] = transform.apply_hpf_DC(x)[0, ::997].numpy()
    return arrays


def compare_published():
    """One evaluation of both networks with the same weights at the size of the 22.05 kHz checkpoint."""
    from sfumato.model import fill_network
    from sfumato.networks.cqt_unet import Config
    from sfumato.systems import cqtdiff

    config = Config()
    theirs = network_of(config.model_dump()).requires_grad_(False)
    print(f"{sum(value.numel() for value in theirs.state_dict().values())} weights")
    values, weights = cqtdiff.adopt(theirs.state_dict())
    assert Config.model_validate(values["network"]) == config
    ours = cqtdiff.build(cqtdiff.Config(network=config)).requires_grad_(False)
    fill_network(ours, weights, Path("checkpoint"))
    x, c_noise = broadband(config.n_samples), torch.tensor([-0.5])
    start = time.process_time()
    y = theirs(x.clone(), c_noise[:, None])
    middle = time.process_time()
    own = ours(x[:, None], c_noise)[:, 0]
    end = time.process_time()
    print(f"relative difference {float((own - y).norm() / y.norm()):.1e}")
    print(f"published {middle - start:.1f} s, ours {end - middle:.1f} s of processor time")


if __name__ == "__main__":
    main()
