"""Published Riffusion checkpoints in the format of diffusers, from a folder on this machine.

Such a folder holds a Stable Diffusion of pictures of sound: `vae`, `unet`, `text_encoder`, `tokenizer`, `scheduler`.
Its networks are built by diffusers and transformers (the extra `hub`); how they are walked is sfumato's own affair: the
U-Net becomes a denoiser like any other. Nothing is fetched and no pickle is read. A safety checker is neither looked
for nor used, since it judges photographs.

References
----------
.. [1] R. Rombach et al., "High-resolution image synthesis with latent diffusion models", arXiv 2112.10752.
.. [2] S. Forsgren, H. Martiros, "Riffusion", 2022, github.com/riffusion/riffusion-hobby (MIT).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import Tensor, nn

from sfumato.config import parse
from sfumato.diffusion import guide, precondition, schedule
from sfumato.errors import InputError, MissingExtraError, ModelError
from sfumato.folder import Card, check_weights
from sfumato.model import Model
from sfumato.networks.text import parts

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.precondition import Denoiser

SYSTEM = "published_riffusion"
CARD = Card(summary="A published Riffusion checkpoint.", licence="its publisher's", sample_rate=44100)
NETWORKS = {
    "vae": ("AutoencoderKL", "diffusion_pytorch_model"),
    "unet": ("UNet2DConditionModel", "diffusion_pytorch_model"),
    "text_encoder": ("CLIPTextModel", "model"),
}
"""Folder of each network -> its class, and its weights' file without suffix."""
MAX_CHUNKS = 3
"""A prompt is read in chunks of what the text encoder takes at once; so many at most."""
OVERLAP = 4
"""Neighbouring windows share a window's columns divided by this."""
MAX_JSON_BYTES = 1 << 20


class Schedule(BaseModel):
    """What `scheduler/scheduler_config.json` says of the noise; how to step is not the checkpoint's affair."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    num_train_timesteps: int = Field(1000, ge=4, le=100_000)
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    trained_betas: None = None
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    rescale_betas_zero_snr: Literal[False] = False

    def trained(self) -> Float[Tensor, " n"]:
        """The levels of noise that it was trained on, increasing."""
        root = self.beta_schedule == "scaled_linear"
        return schedule.trained_sigmas(self.beta_start, self.beta_end, self.num_train_timesteps, root)

    def sigmas(self, steps: int, strength: float = 1.0) -> Float[Tensor, " m"]:
        """Levels of the last `strength` of `steps` published steps, at least of one, and the final 0.

        Raises
        ------
        InputError
            There are too many steps for the trained levels.

        Notes
        -----
        "leading" times are one late, as in Stable Diffusion's pipelines, whatever `steps_offset` says.
        """
        n = self.num_train_timesteps
        if not 1 <= steps <= n // 2:
            raise InputError(f"{steps} steps are too many or too few for this checkpoint. Give 1 to {n // 2}.")
        if self.timestep_spacing == "leading":
            times = torch.arange(steps - 1, -1, -1) * (n // steps) + 1
        elif self.timestep_spacing == "trailing":
            times = (n - torch.arange(steps, dtype=torch.float64) * n / steps).round().long() - 1
        else:
            times = torch.linspace(0, n - 1, steps, dtype=torch.float64).round().long().flip(0)
        levels = torch.cat([self.trained()[times], torch.zeros(1, dtype=torch.float64)])
        return levels[steps - max(1, int(steps * strength + 1e-9)) :]


@dataclass(frozen=True)
class PublishedRiffusion(Model):
    """A checkpoint as a model, from `load_published`: its configuration is a `Schedule`, its networks three."""

    folder: Path
    tokenizer: Any

    @property
    def schedule(self) -> Schedule:
        """The noise that it was trained on."""
        assert isinstance(self.config, Schedule)
        return self.config

    def part(self, name: str) -> Any:
        """One of its networks, of the libraries' classes."""
        return self.network.get_submodule(name)

    @property
    def factor(self) -> int:
        """Pixels of a side that one value of the latents stands for."""
        return 1 << (len(self.part("vae").config.block_out_channels) - 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of latents that the U-Net sees at once."""
        said = self.part("unet").config
        rows, columns = (said.sample_size,) * 2 if isinstance(said.sample_size, int) else said.sample_size
        return int(said.in_channels), int(rows), int(columns)

    @property
    def rows(self) -> int:
        """Rows of the pictures."""
        return self.factor * self.shape[1]

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 c h2 w2"]:
        """Latents of pixels from -1 to 1: the posterior's most likely ones, where upstream draws one.

        Wide pictures are encoded in windows, whose results cross.
        """
        vae = self.part("vae")
        scale = vae.config.scaling_factor
        return self._crossed(lambda piece: scale * vae.encode(piece).latent_dist.mode(), pixels, self.factor, 1)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "1 c h2 w2"]) -> Float[Tensor, "1 3 h w"]:
        """Pixels of latents, from about -1 to 1, in windows as `encode`."""
        vae = self.part("vae")
        scale = vae.config.scaling_factor
        return self._crossed(lambda piece: vae.decode(piece / scale).sample, latents, 1, self.factor)

    def _crossed(self, process: Callable[[Tensor], Tensor], x: Tensor, taken: int, given: int) -> Tensor:
        """`process` in windows along time; a column of latents is `taken` columns of `x`, `given` of the result."""
        total, length = x.shape[-1] // taken, self.shape[2]
        if total <= length:
            return process(x)
        overlap = length // OVERLAP
        rise = (torch.arange(length * given) + 0.5) / max(1, overlap * given)
        weight = torch.minimum(rise, rise.flip(0)).clamp(max=1)
        starts = [*range(0, total - length, length - overlap), total - length]
        made, weights = x.new_zeros(0), torch.zeros(total * given)
        for start in starts:
            part = process(x[..., start * taken : (start + length) * taken])
            made = made if made.numel() else part.new_zeros(*part.shape[:-1], total * given)
            here = slice(start * given, (start + length) * given)
            made[..., here] += weight * part
            weights[here] += weight
        return made / weights

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> list[Float[Tensor, "1 n w"]]:
        """The text encoder's states of prompts, all of one length.

        Brackets are weights (`networks.text.parts`): states are multiplied by them and then, together, by what brings
        their mean back, as published. Prompts longer than the encoder takes are read in chunks, each with its marks.

        Raises
        ------
        InputError
            A prompt is longer than three chunks, or its brackets don't match.
        """
        room = self.part("text_encoder").config.max_position_embeddings - 2
        read = [self._pieces(prompt) for prompt in prompts]
        chunks = max(1, *(math.ceil(len(pieces) / room) for pieces in read))
        if chunks > MAX_CHUNKS:
            longest = max(len(pieces) for pieces in read)
            raise InputError(f"A prompt of {longest} word pieces is too long. Give at most {MAX_CHUNKS * room}.")
        return [self._states(pieces, chunks, room) for pieces in read]

    def _pieces(self, prompt: str) -> list[tuple[int, float]]:
        """Number and weight of each word piece."""
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"Character {error.start + 1} of the prompt is half a character. Leave it out.") from None
        return [
            (piece, weight)
            for text, weight in parts(prompt)
            for piece in self.tokenizer(text, add_special_tokens=False).input_ids
        ]

    def _states(self, pieces: list[tuple[int, float]], chunks: int, room: int) -> Tensor:
        """States (1, chunks * (room + 2), w) of a prompt."""
        rows, weights = [], []
        first, last, empty = (getattr(self.tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad"))
        for start in range(0, chunks * room, room):
            own = pieces[start : start + room]
            missing = room - len(own)
            rows.append([first, *(piece for piece, _ in own), last, *[empty] * missing])
            weights += [1.0, *(weight for _, weight in own), *[1.0] * (missing + 1)]
        states: Tensor = self.part("text_encoder")(torch.tensor(rows))[0].flatten(0, 1)[None]
        if all(weight == 1.0 for weight in weights):
            return states
        weighted = states * torch.tensor(weights)[None, :, None]
        return weighted * (states.mean() / weighted.mean())

    def denoiser(self, wanted: Float[Tensor, "1 n w"], avoided: Float[Tensor, "1 n w"], scale: float) -> Denoiser:
        """The denoiser of latents as long as you like, towards `wanted` and away from `avoided`, states of `text`."""
        unet = self.part("unet")
        led, away = (window_denoiser(unet, self.schedule, states) for states in (wanted, avoided))
        return guide.windows(guide.cfg(led, away, scale), self.shape[2], self.shape[2] // OVERLAP)


def window_denoiser(unet: nn.Module, told: Schedule, states: Float[Tensor, "b n w"]) -> Denoiser:
    """The denoiser of windows of latents that a U-Net of diffusers is; one prompt's `states` hold for all items."""
    trained = told.trained()

    def network(x: Tensor, place: Tensor, states: Tensor) -> Tensor:
        raw: Tensor = unet(x, place, states.expand(len(x), -1, -1)).sample
        return raw

    def of_time(x: Tensor, time: Tensor, states: Tensor) -> Tensor:
        return network(x, precondition.place(torch.tan(time.double() * math.pi / 2), trained).to(x), states)

    if told.prediction_type == "epsilon":
        return precondition.eps(network, states, trained=trained)
    return precondition.v(of_time, states)


def is_published(folder: str | Path) -> bool:
    """Whether a folder is one of diffusers' format."""
    return (Path(folder) / "model_index.json").is_file()


def load_published(folder: str | Path) -> PublishedRiffusion:
    """The checkpoint in a folder of diffusers' layout, float32, on the CPU. Nothing is fetched.

    Raises
    ------
    MissingExtraError
        The extra `hub` isn't installed.
    ModelError
        A part is missing, broken, a pickle, or doesn't fit the others; says which.
    """
    folder = Path(folder)
    classes = _classes()
    if not is_published(folder):
        loose = [path.name for path in sorted(folder.glob("*")) if path.suffix in {".ckpt", ".safetensors", ".pt"}]
        hint = f" {loose[0]} alone is another format: convert it with diffusers first." if loose else ""
        needed = ", ".join((*NETWORKS, "tokenizer", "scheduler"))
        raise ModelError(
            f"{folder} holds no model_index.json.{hint} Give the folder of a checkpoint in diffusers' format, with "
            f"model_index.json and the folders {needed}."
        )
    _check_names(folder, _json(folder / "model_index.json"))
    own = folder / "scheduler" / "scheduler_config.json"
    try:
        told = parse(_json(own), Schedule, str(own))
        told.trained()
    except InputError as error:
        raise ModelError(str(error)) from None
    networks = {name: _network(folder / name, classes[kind], stem) for name, (kind, stem) in NETWORKS.items()}
    network, tokenizer = nn.ModuleDict(networks), _tokenizer(folder, classes)
    published = PublishedRiffusion(folder.resolve().name, SYSTEM, told, network, CARD, folder, tokenizer)
    _check_fit(published)
    return published


def _classes() -> dict[str, Any]:
    """The classes of the two libraries, by name."""
    try:
        from diffusers import AutoencoderKL, UNet2DConditionModel
    except ImportError:
        raise MissingExtraError("diffusers", "hub") from None
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise MissingExtraError("transformers", "hub") from None
    return {kind.__name__: kind for kind in (AutoencoderKL, UNet2DConditionModel, CLIPTextModel, CLIPTokenizer)}


def _json(path: Path) -> dict[str, Any]:
    """A mapping in a JSON file."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{path} is larger than {MAX_JSON_BYTES} bytes.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing. A checkpoint in diffusers' format has it.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON that can be read ({type(error).__name__}).") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} must hold a mapping of names to values.")
    return values


def _check_names(folder: Path, said: dict[str, Any]) -> None:
    """Refuse a pipeline of other parts than those that are known here."""
    kinds = {name: kind for name, (kind, _) in NETWORKS.items()} | {"tokenizer": "CLIPTokenizer"}
    for name, kind in kinds.items():
        entry = said.get(name)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in (kind, f"{kind}Fast"):
            raise ModelError(f"{folder / 'model_index.json'}: {name} = {found}; possible is {kind}.")
        if not (folder / name).is_dir():
            raise ModelError(f"{folder} has no folder {name}, which model_index.json names. Complete the checkpoint.")


def _weights(folder: Path, stem: str) -> tuple[Path, str | None]:
    """The weights' file of a network, and its variant.

    Raises
    ------
    ModelError
        There are none, or only pickles.
    """
    for variant in (None, "fp16"):
        path = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
        if path.is_file():
            return path, variant
    pickles = [file.name for file in sorted(folder.glob("*")) if file.suffix in {".bin", ".pt", ".ckpt", ".pth"}]
    found = f"{pickles[0]} alone, a pickle, which could run code and is never loaded" if pickles else "no weights"
    raise ModelError(f"{folder} holds {found}. It needs {stem}.safetensors; publishers often have both.")


def _network(folder: Path, kind: Any, stem: str) -> Any:
    """A network with its weights, all of them, in float32."""
    from huggingface_hub.errors import StrictDataclassError

    path, variant = _weights(folder, stem)
    check_weights(path)
    _json(folder / "config.json")
    options = {"use_safetensors": True, "local_files_only": True, "variant": variant, "output_loading_info": True}
    own = {"dtype": torch.float32} if stem == "model" else {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    try:
        with _quiet():
            network, info = kind.from_pretrained(folder, **options, **own)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ModelError(f"{folder} can't be read: {' '.join(str(error).split())[:300]}") from None
    absent = sorted((*info["missing_keys"], *info["mismatched_keys"]), key=str)
    if absent:
        raise ModelError(f"{path}: the weight {absent[0]} is missing or of another shape.")
    for key, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {key} holds values that are not finite.")
    return network.float().eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _tokenizer(folder: Path, classes: dict[str, Any]) -> Any:
    """The checkpoint's own tokenizer."""
    own = folder / "tokenizer"
    if not (own / "tokenizer.json").is_file() and not all((own / n).is_file() for n in ("vocab.json", "merges.txt")):
        raise ModelError(f"{own} holds no word pieces. It needs vocab.json and merges.txt, or tokenizer.json.")
    try:
        return classes["CLIPTokenizer"].from_pretrained(own, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{own} can't be read: {' '.join(str(error).split())[:300]}") from None


def _check_fit(published: PublishedRiffusion) -> None:
    """Refuse parts that don't belong together."""
    unet, vae, text = (published.part(name).config for name in ("unet", "vae", "text_encoder"))
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        raise ModelError(
            f"{published.folder}: the U-Net takes {unet.in_channels} channels and gives {unet.out_channels}, the VAE "
            f"has {vae.latent_channels}. Checkpoints for inpainting or of other kinds can't be used."
        )
    if vae.in_channels != 3 or unet.cross_attention_dim != text.hidden_size:
        raise ModelError(
            f"{published.folder}: pictures of {vae.in_channels} channels, a U-Net that reads states of "
            f"{unet.cross_attention_dim} values, a text encoder of {text.hidden_size}. They don't belong together."
        )
    if not unet.sample_size or min(published.shape) < 2:
        raise ModelError(f"{published.folder / 'unet' / 'config.json'}: sample_size is missing.")
    if len(published.tokenizer) > text.vocab_size:
        raise ModelError(f"{published.folder}: {len(published.tokenizer)} word pieces, a text encoder of fewer.")
