"""CQT-Diff+ in use: a checkpoint in the published layout, converted, loaded, filling gaps; bad ones refused."""

import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sfumato import cli
from sfumato.convert import Limits, convert
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, ModelError
from sfumato.model import fill_network, load
from sfumato.networks.cqt_unet import Config as NetworkConfig
from sfumato.systems import cqtdiff

GOLDEN = Path(__file__).parent.parent / "golden" / "cqt.npz"
N_SAMPLES = 2048
ASSIGNMENTS = ("network.n_samples=2048", "network.sample_rate=22050")


def random_weights(seed):
    """Weights of a tiny network under their published names."""
    generator = torch.Generator().manual_seed(seed)
    with np.load(GOLDEN) as arrays:
        shapes = {key.removeprefix("weight/"): arrays[key].shape for key in arrays.files if key.startswith("weight/")}
    kernel = torch.tensor(cqtdiff.cqt_unet.RESAMPLING)
    return OrderedDict(
        (key, kernel if key.endswith("kernel") else torch.randn(shape, generator=generator) / shape[-1] ** 0.5)
        for key, shape in shapes.items()
    )


def training_configuration(monkeypatch):
    """An object of a class that only the training's machine has, as the published checkpoints carry one."""
    module = types.ModuleType("omegaconf.dictconfig")
    module.DictConfig = type("DictConfig", (), {"__module__": "omegaconf.dictconfig", "__qualname__": "DictConfig"})
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    configuration = module.DictConfig()
    configuration.__dict__.update(content={"exp": {"sample_rate": 22050}}, kind=dict)
    return configuration


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A checkpoint as the published trainer writes them, and the folder it became."""
    root = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        network = random_weights(0)
        optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": [{"betas": (0.9, 0.999)}]}
        checkpoint = {"it": 750000, "network": network, "optimizer": optimizer, "ema": random_weights(1)}
        torch.save({**checkpoint, "args": training_configuration(patch)}, root / "tiny_22k-750000.pt")
    done = convert(root / "tiny_22k-750000.pt", root / "tiny", assignments=ASSIGNMENTS)
    assert (done.part, done.weights) == ("ema", sum(value.numel() for value in checkpoint["ema"].values()))
    return root, checkpoint


@pytest.fixture(scope="module")
def model(converted):
    return load(converted[0] / "tiny")


@pytest.fixture(scope="module")
def clip():
    """A tenth of a second of two partials, and a gap in it that holds nonsense."""
    t = torch.arange(N_SAMPLES, dtype=torch.float64) / 22050
    x = 0.1 * torch.sin(2 * torch.pi * 440 * t) + 0.05 * torch.sin(2 * torch.pi * 1320 * t + 1)
    known = torch.ones(N_SAMPLES, dtype=torch.bool)
    known[1000:1080] = False
    x[~known] = torch.nan
    return x[None, None], known


SAMPLING = cqtdiff.Sampling(steps=3, fade=20)


def test_converted_weights_are_the_averaged_ones_to_the_last_bit(converted, model):
    _, weights = cqtdiff.adopt(converted[1]["ema"])
    state = model.network.state_dict()
    assert weights.keys() == state.keys()
    for key, value in weights.items():
        assert torch.equal(state[key], value), key
    assert model.system == "cqtdiff"
    assert model.card.sample_rate == 22050
    assert model.config.network.n_samples == N_SAMPLES


def test_a_converted_model_fills_gaps_and_keeps_every_known_bit(model, clip):
    observed, known = clip
    assert observed.dtype == torch.float64
    filled = cqtdiff.inpaint(model.network, model.config, observed, known, SAMPLING, seed=1, items=[0, 7])
    assert filled.shape == (2, 1, N_SAMPLES)
    for fill in filled:
        assert torch.equal(fill[..., known], observed[0][..., known])
    assert torch.isfinite(filled).all()
    assert not torch.allclose(filled[0], filled[1])
    alone = cqtdiff.inpaint(model.network, model.config, observed, known, SAMPLING, seed=1, items=[7])
    # A network of random weights blows differences of rounding up.
    assert (alone[0] - filled[1]).norm() < 1e-3 * (filled[0] - filled[1]).norm(), "a draw depends on its batch"


def test_a_shorter_clip_keeps_its_length(model, clip):
    observed, known = clip[0][..., :1500], clip[1][:1500]
    filled = cqtdiff.inpaint(model.network, model.config, observed, known, SAMPLING, seed=1, items=[0])
    assert filled.shape == observed.shape
    assert torch.equal(filled[..., known], observed[..., known])


def test_clips_that_cannot_be_filled_are_refused(model, clip):
    observed, known = clip

    def fill(x, known):
        return cqtdiff.inpaint(model.network, model.config, x, known, SAMPLING, seed=0, items=[0])

    with pytest.raises(InputError, match="up to 2048"):
        fill(torch.zeros(1, 1, 2049), torch.ones(2049, dtype=torch.bool))
    with pytest.raises(InputError, match="Nothing in the clip is known"):
        fill(observed, torch.zeros_like(known))
    with pytest.raises(InputError, match="not finite"):
        fill(observed, torch.ones_like(known))


def test_pasting_leaves_no_step_at_the_join():
    observed = torch.sin(torch.arange(400, dtype=torch.float64) / 9)[None, None]
    known = torch.ones(400, dtype=torch.bool)
    known[150:250] = False
    place = torch.arange(400)
    lack = (1 - torch.maximum(149 - place, place - 250) / 20).clamp(0, 1)  # 1 in the gap, 0 from 20 samples beside it
    pasted = cqtdiff.paste(observed - lack, observed, known, fade=20)
    error = (pasted - observed)[0, 0]
    assert torch.equal(error[known], torch.zeros(300, dtype=torch.float64))
    assert error[150].abs() < 0.01 and error[249].abs() < 0.01
    assert torch.allclose(error[170:230], torch.full((60,), -1.0, dtype=torch.float64))
    edge = torch.zeros(400, dtype=torch.bool)
    edge[390:] = True
    assert torch.isfinite(cqtdiff.paste(observed - 1.0, observed, edge, fade=20)).all()
    with pytest.raises(ModelError, match="not finite"):
        cqtdiff.paste(observed * torch.nan, observed, known, fade=20)


def test_the_known_is_trusted_less_beside_a_gap():
    known = torch.ones(300, dtype=torch.bool)
    known[100:150], known[160:170] = False, False
    trust = cqtdiff._trust(known, 20)
    assert torch.equal(trust == 0, ~known | (torch.arange(300) == 150) | (torch.arange(300) == 170))
    assert trust[80] == 1 and trust[190] == 1 and 0 < trust[99] < trust[90] < 1
    assert trust[155:160].max() < 0.6
    assert torch.equal(cqtdiff._trust(known, 0), known.float())


def test_the_loss_of_a_network_that_says_nothing_is_one():
    """Input, target and error have unit variance at every noise level; a network of zeros errs by all of it."""
    config = cqtdiff.Config(network=NetworkConfig(n_samples=2048, bins_per_octave=8, widths=(8, 8), dilations=(1, 1),
                                                  attention=(False,) * 3))  # fmt: skip
    clean = 0.063 * torch.randn(64, 1, 2048, generator=torch.Generator().manual_seed(0))
    losses = cqtdiff.loss(
        lambda x, c_noise, condition: torch.zeros_like(x), {"clean": clean}, config, BatchNoise(0, 0, 64), "denoise"
    )
    assert float(losses["total"]) == pytest.approx(1.0, abs=0.02)


def test_a_training_step_reaches_every_weight():
    config = cqtdiff.Config(network=NetworkConfig(n_samples=1024, bins_per_octave=4, widths=(8, 8), dilations=(1, 2),
                                                  attention=(False, True, True), heads=2, embedding=8))  # fmt: skip
    torch.manual_seed(0)
    network = cqtdiff.build(config)
    clean = 0.063 * torch.randn(2, 1, 1024, generator=torch.Generator().manual_seed(0))
    cqtdiff.loss(network, {"clean": clean}, config, BatchNoise(0, 0, 2), "denoise")["total"].backward()
    for name, value in network.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), name


# Refusals.


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


def test_a_checkpoint_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    for i, call in enumerate((Runs(os.system, f"touch {canary}"), Runs(Path.touch, canary), Runs(eval, "1"))):
        path = tmp_path / f"{i}.pt"
        torch.save({"it": 1, "ema": random_weights(0), "args": call}, path)
        with pytest.raises(ModelError, match=r"it names [\w.]*(system|PosixPath|getattr|eval)"):
            convert(path, tmp_path / "out", assignments=ASSIGNMENTS)
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.pt", "1.pt", "2.pt"]


def test_a_checkpoint_that_unfolds_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    torch.save({"ema": {"a": torch.zeros(1).expand(10**12)}}, path)
    with pytest.raises(ModelError, match="unfold to more than"):
        convert(path, tmp_path / "out")


def test_broken_and_foreign_files_are_refused(tmp_path, converted):
    whole = (converted[0] / "tiny_22k-750000.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "foreign.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"ema": {}}, protocol=2))
    for name in ("cut.pt", "foreign.pt"):
        with pytest.raises(ModelError, match=r"damaged|broken|no weights"):
            convert(tmp_path / name, tmp_path / "out")
    torch.save({"ema": random_weights(0)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "empty.pt").touch()
    for name in ("old.pt", "pipe.pt", "empty.pt"):
        with pytest.raises(ModelError, match="archive form"):
            convert(tmp_path / name, tmp_path / "out")
    with pytest.raises(InputError, match="can't be opened"):
        convert(tmp_path / "none.pt", tmp_path / "out")
    with pytest.raises(ModelError, match="longer than 0 s"):
        convert(converted[0] / "tiny_22k-750000.pt", tmp_path / "out", limits=Limits(seconds=0))
    assert not (tmp_path / "out").exists()


def test_what_a_file_does_not_tell_is_asked_for(converted, tmp_path):
    checkpoint = converted[0] / "tiny_22k-750000.pt"
    with pytest.raises(InputError, match=r"--set network.sample_rate=… --set network.n_samples=…"):
        convert(checkpoint, tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        convert(checkpoint, tmp_path)
    with pytest.raises(InputError, match="no system 'x'"):
        convert(checkpoint, tmp_path / "out", system="x")
    with pytest.raises(InputError, match="no published checkpoints"):
        convert(checkpoint, tmp_path / "out", system="conffusion")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.pop("embedding.MLP.2.weight"), "embedding.MLP.2.weight is missing"),
        (lambda w: w.pop("ups.0.1.H.0.weight"), r"up.0.block.layers.0.conv.weight is missing"),
        (lambda w: w.update({"downs.1.1.weight": torch.zeros(8)}), "has 1 dimensions, expected 4"),
        (lambda w: w.update({"downs.0.2.attn_block.rel_pos.x": torch.zeros(1)}), "is not part of this network"),
        (lambda w: w.update({"middle.0.0.proj_out.weight": torch.zeros(3, 16, 1, 1)}), "has shape"),
        (lambda w: w.clear(), "no checkpoint of CQT-Diff"),
        (lambda w: [w.pop(key) for key in list(w) if key.startswith("downs.")], r"downs.0.1.weight is missing"),
    ],
)
def test_weights_of_another_network_are_refused(change, match):
    weights = random_weights(0)
    change(weights)
    with pytest.raises(ModelError, match=match):
        values, renamed = cqtdiff.adopt(weights)
        network = {**values["network"], "sample_rate": 22050, "n_samples": N_SAMPLES}
        config = cqtdiff.Config.model_validate({"network": network})
        fill_network(cqtdiff.build(config), renamed, Path("checkpoint.pt"))


def test_published_depths_need_no_further_settings():
    weights = {f"downs.{i}.1.weight": torch.empty(8, 2, 5, 3) for i in range(8)} | {
        "embedding.MLP.2.weight": torch.empty(16, 256)
    }
    values, _ = cqtdiff.adopt(weights)
    assert (values["network"]["sample_rate"], values["network"]["n_samples"]) == (44100, 184184)


SEALED = """
import ctypes, os, platform, socket, sys
from sfumato import convert_child
convert_child._seal()
def fails(action):
    try:
        action()
    except PermissionError:
        return True
    return False
def calls(number):
    if libc.syscall(number, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")
libc = ctypes.CDLL(None, use_errno=True)
CALLS = {"x86_64": (56, 259, 304, 435), "aarch64": (220, 33, 265, 435)}[platform.machine()]
assert open(sys.argv[1]).read() == "readable"
print(
    fails(lambda: socket.socket()),
    fails(lambda: open(sys.argv[1], "w")),
    fails(lambda: os.open(sys.argv[1] + "x", os.O_CREAT | os.O_RDONLY)),
    fails(lambda: os.execv("/bin/true", ["true"])),
    fails(lambda: os.unlink(sys.argv[1])),
    fails(lambda: os.rename(sys.argv[1], sys.argv[1] + "y")),
    fails(lambda: os.kill(os.getppid(), 0)),
    fails(lambda: os.mkfifo(sys.argv[1] + "z")),
    fails(lambda: os.fork() or os._exit(0)),
    *(fails(lambda: calls(number)) for number in CALLS),
)
"""


def test_the_reader_is_sealed_off(tmp_path):
    path = tmp_path / "file"
    path.write_text("readable")
    done = subprocess.run(
        [sys.executable, "-c", SEALED, path], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.split() == ["True"] * 13, done.stderr
    assert path.read_text() == "readable"


def test_the_command_converts_and_its_help_loads_no_torch(converted, tmp_path, capsys):
    words = ["models", "convert", str(converted[0] / "tiny_22k-750000.pt"), str(tmp_path / "out")]
    for assignment in ASSIGNMENTS:
        words += ["--set", assignment]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert not ended.value.code
    assert "the checkpoint's 'ema'" in capsys.readouterr().out
    header = yaml.safe_load((tmp_path / "out" / "model.yaml").read_text())
    assert header["system"] == "cqtdiff"
    length = int.from_bytes((tmp_path / "out" / "model.safetensors").read_bytes()[:8], "little")
    stored = json.loads((tmp_path / "out" / "model.safetensors").read_bytes()[8 : 8 + length])
    assert {entry["dtype"] for key, entry in stored.items() if key != "__metadata__"} == {"F32"}
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 3
    help_page = (
        "import sys\nfrom sfumato.cli import main\n"
        "try: main(['models', 'convert', '--help'])\nexcept SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", help_page], capture_output=True, check=False).returncode == 0
