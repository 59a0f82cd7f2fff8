"""The training loop: exact resume, signals, processes, and what it writes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import Field
from torch import nn

from sfumato.config import Settings
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, ModelError, SfumatoError
from sfumato.model import read_tensors
from sfumato.processes import only_writer
from sfumato.train import TrainSettings, fit, learning_rate


class Config(Settings):
    width: int = Field(8, description="width of the hidden layer")
    sample_rate: int = Field(8000, description="Hz")


class Regression:
    """Learn y = 2 x from noisy inputs, with dropout so that torch's own generator matters."""

    def __init__(self, kill_at=None):
        self.kill_at = kill_at

    def batch(self, seed, step, size, rank, world):
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        share = size // world
        x = BatchNoise(seed + 1, step * size + rank * share, share)(0, (4,))
        return {"x": x, "y": 2 * x}


def build(config):
    return nn.Sequential(nn.Linear(4, config.width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(config.width, 4))


def loss(network, batch, config, noise, turn):
    noisy = batch["x"] + 0.1 * noise(0, (4,)) * noise.uniform(1, (1,))
    error = ((network(noisy) - batch["y"]) ** 2).mean()
    return {"total": error, "mse": error}


SYSTEM = SimpleNamespace(NAME="conffusion", TURNS=("denoise",), build=build, loss=loss)
SETTINGS = TrainSettings(steps=10, batch_size=4, warmup_steps=2, log_every=3, checkpoint_every=4, learning_rate=1e-2)


def state(folder, step=10):
    tensors, _ = read_tensors(folder / f"checkpoint-{step:08d}.safetensors")
    return tensors


def assert_same_state(left, right):
    assert left.keys() == right.keys()
    assert any(key.startswith("optimizer.") for key in left)
    assert any(key.startswith("average.") for key in left)
    for key in left:
        assert torch.equal(left[key], right[key]), key


def log_lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_ten_steps_equal_five_and_five(tmp_path):
    settings = SETTINGS.model_copy(update={"log_every": 10})  # so that wherever it is stopped, sums are kept
    fit(SYSTEM, Config(), settings, Regression(), tmp_path / "whole")
    with pytest.raises(SystemExit) as stopped:
        fit(SYSTEM, Config(), settings, Regression(kill_at=5), tmp_path / "parts")
    assert stopped.value.code == 143
    assert 0 < read_step(tmp_path / "parts") < 10
    fit(SYSTEM, Config(), settings, Regression(), tmp_path / "parts")
    assert_same_state(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")


def test_another_seed_is_another_training(tmp_path):
    fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path / "a")
    fit(SYSTEM, Config(), SETTINGS.model_copy(update={"seed": 1}), Regression(), tmp_path / "b")
    assert not torch.equal(state(tmp_path / "a")["network.0.weight"], state(tmp_path / "b")["network.0.weight"])


def test_it_learns_and_exports_the_average(tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 150, "batch_size": 32, "log_every": 50})
    result = fit(SYSTEM, Config(), settings, Regression(), tmp_path, validation=Regression())
    losses = [line["total"] for line in log_lines(tmp_path) if "total" in line]
    assert result.stopped_by == "steps"
    assert losses[-1] < 0.8 * losses[0]
    assert any("validation/total" in line for line in log_lines(tmp_path))
    exported, _ = read_tensors(result.model / "model.safetensors")
    averaged = {k.removeprefix("average."): v for k, v in state(tmp_path, 150).items() if k.startswith("average.")}
    for key, value in averaged.items():
        assert torch.equal(exported[key], value.half())


def test_the_average_is_the_average_of_the_weights(tmp_path):
    """Against the definition, from the checkpoints of a training that writes one at each step."""
    settings = SETTINGS.model_copy(update={"steps": 1, "checkpoint_every": 1, "ema_decay": 0.3})
    fit(SYSTEM, Config(), settings, Regression(), tmp_path)
    expected = None
    for step in range(1, 6):
        fit(SYSTEM, Config(), settings.model_copy(update={"steps": step}), Regression(), tmp_path)
        tensors = state(tmp_path, step)
        if expected is not None:
            decay = min(0.3, step / (step + 9))
            expected = decay * expected + (1 - decay) * tensors["network.0.weight"]
            torch.testing.assert_close(tensors["average.0.weight"], expected, rtol=1e-6, atol=1e-7)
        expected = tensors["average.0.weight"]


def test_only_the_last_two_checkpoints_stay(tmp_path):
    fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path)
    assert [p.name for p in sorted(tmp_path.glob("checkpoint-*"))] == [
        "checkpoint-00000008.safetensors",
        "checkpoint-00000010.safetensors",
    ]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_time_limit_stops_on_a_checkpoint(tmp_path):
    result = fit(SYSTEM, Config(), SETTINGS.model_copy(update={"minutes": 0.0}), Regression(), tmp_path)
    assert (result.step, result.stopped_by) == (0, "minutes")
    assert result.checkpoint.is_file()
    assert fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path).step == 10


def test_signals_give_their_exit_codes_and_handlers_come_back(tmp_path):
    class Interrupted(Regression):
        def batch(self, seed, step, size, rank, world):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().batch(seed, step, size, rank, world)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        fit(SYSTEM, Config(), SETTINGS, Interrupted(), tmp_path)
    assert stopped.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert 0 < read_step(tmp_path) < 10


def read_step(folder):
    return int(max(folder.glob("checkpoint-*")).stem.removeprefix("checkpoint-"))


def test_a_folder_of_another_training_is_refused(tmp_path):
    fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path)
    with pytest.raises(InputError, match="batch_size = 4, now batch_size = 8"):
        fit(SYSTEM, Config(), SETTINGS.model_copy(update={"batch_size": 8}), Regression(), tmp_path)
    with pytest.raises(InputError, match="another configuration"):
        fit(SYSTEM, Config(width=9), SETTINGS, Regression(), tmp_path)


def test_a_second_writer_is_refused(tmp_path):
    with only_writer(tmp_path), pytest.raises(InputError, match="Another process"):
        fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path)


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_a_typed_error(tmp_path, cut):
    fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path)
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:cut])
    with pytest.raises(ModelError):
        fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path)


def test_a_gradient_that_stays_non_finite_ends_the_training(tmp_path):
    def broken(network, batch, config, noise, turn):
        return {"total": loss(network, batch, config, noise, turn)["total"] * float("nan")}

    system = SimpleNamespace(NAME="conffusion", TURNS=("denoise",), build=build, loss=broken)
    with pytest.raises(SfumatoError, match="not finite"):
        fit(system, Config(), SETTINGS.model_copy(update={"steps": 60}), Regression(), tmp_path)


def test_turns_train_their_own_child_only(tmp_path):
    def build_two(config):
        return nn.ModuleDict({"one": nn.Linear(4, 4), "two": nn.Linear(4, 4)})

    def loss_two(network, batch, config, noise, turn):
        output = network["two"](network["one"](batch["x"]))
        return {"total": ((output - batch["y"]) ** 2).mean() * (1.0 if turn == "one" else 0.0)}

    system = SimpleNamespace(NAME="conffusion", TURNS=("one", "two"), build=build_two, loss=loss_two)
    settings = SETTINGS.model_copy(update={"weight_decay": 0.0, "checkpoint_every": 100})
    fit(system, Config(), settings.model_copy(update={"steps": 1, "minutes": 0.0}), Regression(), tmp_path)
    start = state(tmp_path, 0)
    fit(system, Config(), settings, Regression(), tmp_path)
    end = state(tmp_path)
    assert not torch.equal(start["network.one.weight"], end["network.one.weight"])
    assert torch.equal(start["network.two.weight"], end["network.two.weight"])
    assert "one/total" in log_lines(tmp_path)[0]


def test_a_demo_sees_the_average_and_a_folder(tmp_path):
    def demo(network, config, settings, folder, step):
        assert not network.training
        (folder / f"{step}.txt").write_text("heard")

    system = SimpleNamespace(**vars(SYSTEM), demo=demo)
    fit(system, Config(), SETTINGS.model_copy(update={"demo_every": 5}), Regression(), tmp_path)
    assert sorted(p.name for p in (tmp_path / "demos").iterdir()) == ["10.txt", "5.txt"]


def test_tensorboard_events_are_written(tmp_path):
    fit(SYSTEM, Config(), SETTINGS.model_copy(update={"tensorboard": True}), Regression(), tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"total" in events.read_bytes()


def test_noise_of_an_item_does_not_depend_on_its_batch():
    whole, part = BatchNoise(3, 8, 4), BatchNoise(3, 10, 2)
    assert torch.equal(whole(1, (5,))[2:], part(1, (5,)))
    assert torch.equal(whole.uniform(1, (5,))[2:], part.uniform(1, (5,)))
    assert not torch.equal(whole(1, (5,)), whole(2, (5,)))
    assert whole.uniform(0).shape == (4,)


def test_learning_rate_warms_up_and_decays():
    settings = TrainSettings(steps=100, warmup_steps=10, learning_rate=1.0, decay_to=0.1)
    assert learning_rate(settings, 0) == pytest.approx(0.1)
    assert learning_rate(settings, 9) == pytest.approx(1.0)
    assert learning_rate(settings, 55) == pytest.approx(0.55)
    assert learning_rate(settings, 100) == pytest.approx(0.1)


def test_two_processes_do_what_one_does(tmp_path):
    """Equal up to the order of float32 sums; dropout is off, as its noise belongs to a process."""
    program = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([sys.executable, program, tmp_path / "one"], check=True, env=environment, timeout=120)
    subprocess.run([*torchrun, program, tmp_path / "two"], check=True, env=environment, timeout=120)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for key in one:
        if key.startswith(("network.", "average.")):
            torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
