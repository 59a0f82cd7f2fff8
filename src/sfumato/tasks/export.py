"""A codec as one TorchScript file, for hosts of nn~ in Max and Pure Data: nothing but torch is needed to run it.

Such a host finds methods by `get_methods()` and their shapes by buffers called ``<method>_params``: channels in,
samples per frame in, channels out, samples per frame out. Attributes it finds by `get_attributes()`, and their types
by ``<attribute>_params``; they are read and set by ``get_<attribute>()`` and ``set_<attribute>(value)``, which returns
0 if the value was taken.

`encode` gives coordinates on the principal axes, strongest first, in standard deviations; `decode` takes them;
`forward` is both. The pasts are buffers of the module, emptied by `reset()`, and begin anew whenever the number of
streams changes. Annotations are real types in this file, since TorchScript reads them.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.errors import InputError, ModelError
from sfumato.files import write_atomically
from sfumato.model import Model
from sfumato.networks import vae
from sfumato.systems.rave import Codec, Rave

NAME = "export"
_FLOAT = 2
"""nn~'s number for an attribute that is a float."""


class _Layer(nn.Module):
    """Any layer of `networks.vae` with its past inside, in what TorchScript understands."""

    past: Tensor

    def __init__(
        self,
        conv: nn.Conv1d,
        history: int,
        bends: bool = False,
        down: int = 1,
        up: int = 1,
        point: nn.Conv1d | None = None,
    ) -> None:
        super().__init__()
        self.conv, self.history, self.bends, self.down, self.up = conv, history, bends, down, up
        self.residual = point is not None
        self.point = point if point is not None else nn.Identity()
        self.register_buffer("past", torch.zeros(1, conv.in_channels, history))

    def forward(self, x: Tensor) -> Tensor:
        """The output of `x`, after all that came before."""
        h = functional.leaky_relu(x, 0.2) if self.bends else x
        if self.down > 1:
            b, c, t = h.shape
            h = h.reshape(b, c, t // self.down, self.down).permute(0, 3, 1, 2).reshape(b, c * self.down, t // self.down)
        if self.past.shape[0] != h.shape[0]:
            self.past = h.new_zeros(h.shape[0], h.shape[1], self.history)
        joined = torch.cat([self.past, h], dim=-1)
        self.past = joined[:, :, joined.shape[2] - self.history :]
        y: Tensor = self.conv(joined)
        if self.up > 1:
            b, c, t = y.shape
            y = y.reshape(b, self.up, c // self.up, t).permute(0, 2, 3, 1).reshape(b, c // self.up, t * self.up)
        if self.residual:
            y = x + self.point(functional.leaky_relu(y, 0.2))
        return y

    @torch.jit.export
    def reset(self) -> None:
        """Forget what came before."""
        self.past = torch.zeros_like(self.past)


class Exported(nn.Module):
    """What the file holds."""

    basis: Tensor
    mean: Tensor
    scale: Tensor
    gains: Tensor
    level: Tensor

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        shape = codec.config.network
        self.channels, self.bands, self.n_latent = shape.channels, shape.bands, shape.latent
        self.steep = float(vae.STEEP)
        self.spherical = codec.config.bottleneck == "spherical"
        bank = codec.bank
        self.analysis = _Layer(_fixed(bank.analysis_filters), bank.history)
        self.synthesis = _Layer(_fixed(bank.synthesis_filters), bank.history)
        self.encoder = nn.ModuleList(_layer(layer) for layer in codec.encoder.layers)
        self.decoder = nn.ModuleList(_layer(layer) for layer in codec.decoder.layers)
        left, _, right = torch.linalg.svd(codec.latent_basis.double())
        self.register_buffer("basis", (left @ right).float())
        self.register_buffer("mean", codec.latent_mean.clone())
        self.register_buffer("scale", codec.latent_scale.clamp_min(1e-9))
        self.register_buffer("gains", torch.ones(shape.latent))
        self.register_buffer("level", torch.ones(()))
        hop = shape.hop_length
        for name, numbers in {
            "encode": (shape.channels, 1, shape.latent, hop),
            "decode": (shape.latent, hop, shape.channels, 1),
            "forward": (shape.channels, 1, shape.channels, 1),
            "fidelity": (_FLOAT,),
        }.items():
            self.register_buffer(f"{name}_params", torch.tensor(numbers))

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        """Coordinates (streams, latent, frames) of audio (streams, channels, samples), a multiple of the hop."""
        b, c, t = x.shape
        folded = x.reshape(b * c, t // self.bands, self.bands).permute(0, 2, 1)
        h: Tensor = self.analysis(folded).reshape(b, c * self.bands, t // self.bands)
        for layer in self.encoder:
            h = layer(h)
        h = h[:, : self.n_latent]
        if self.spherical:
            h = functional.normalize(h, dim=1) * float(self.n_latent) ** 0.5
        return torch.matmul(self.basis, h - self.mean[:, None]) / self.scale[:, None]

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        """Audio of coordinates, as far as the fidelity goes."""
        places = z * (self.scale * self.gains)[:, None]
        h = torch.matmul(self.basis.t(), places) + self.mean[:, None]
        for layer in self.decoder:
            h = layer(h)
        wave, loudness = h.chunk(2, dim=1)
        h = torch.tanh(wave) * torch.sigmoid(self.steep * loudness)
        b, t = h.shape[0], h.shape[2]
        y: Tensor = self.synthesis(h.reshape(b * self.channels, self.bands, t))
        return y.permute(0, 2, 1).reshape(b, self.channels, t * self.bands)

    def forward(self, x: Tensor) -> Tensor:
        """Encoded and decoded."""
        return self.decode(self.encode(x))

    @torch.jit.export
    def reset(self) -> None:
        """Forget every stream's past."""
        self.analysis.reset()
        self.synthesis.reset()
        for layer in self.encoder:
            layer.reset()  # type: ignore[operator]
        for layer in self.decoder:
            layer.reset()  # type: ignore[operator]

    @torch.jit.export
    def get_methods(self) -> list[str]:
        """Names of the methods."""
        return ["encode", "decode", "forward"]

    @torch.jit.export
    def get_attributes(self) -> list[str]:
        """Names of the attributes."""
        return ["fidelity"]

    @torch.jit.export
    def get_fidelity(self) -> float:
        """Share of the sum of singular values that is decoded."""
        return float(self.level.item())

    @torch.jit.export
    def set_fidelity(self, fidelity: float) -> int:
        """Choose it, above 0 and up to 1: 0 if it was taken, -1 if not."""
        if not (fidelity > 0.0 and fidelity <= 1.0):
            return -1
        wanted = fidelity * self.scale.double().sum()
        before = torch.cumsum(self.scale.double(), 0) - self.scale.double()
        self.gains = ((wanted - before) / self.scale.double()).clamp(0.0, 1.0).float()
        self.level = torch.full_like(self.level, fidelity)
        return 0


def export(model: Model, destination: str | Path) -> None:
    """Write a codec as a TorchScript file, whole or not at all.

    Raises
    ------
    ModelError
        The model is no codec.
    InputError
        Its bottleneck is discrete, which has no axes.
    ResourceError
        The disk is full or the folder can't be written.
    """
    if not isinstance(model.network, Rave):
        raise ModelError(f"{model.name} is of the system {model.system}. Give a codec, of the system rave.")
    codec = model.network.codec
    if codec.config.bottleneck == "discrete":
        raise InputError(f"{model.name} is discrete, which is not exported. Give a codec with a continuous latent.")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather export graphs; hosts read TorchScript
        torch.jit.save(torch.jit.script(Exported(codec).eval()), buffer)
    write_atomically(Path(destination), buffer.getvalue())


def _layer(layer: nn.Module) -> _Layer:
    """A layer of `networks.vae` as one of ours; weights are shared."""
    match layer:
        case vae.Unit():
            return _Layer(layer.dilated.conv, layer.dilated.history, bends=True, point=layer.point)
        case vae.Down():
            return _Layer(layer.folded.conv, layer.folded.history, bends=True, down=layer.factor)
        case vae.Up():
            return _Layer(layer.folded.conv, layer.folded.history, bends=True, up=layer.factor)
        case vae.CausalConv():
            return _Layer(layer.conv, layer.history, bends=type(layer) is not vae.CausalConv)
    raise ModelError(f"A layer of {type(layer).__name__} can't be exported.")


def _fixed(filters: Tensor) -> nn.Conv1d:
    """A bank of filters as a convolution."""
    after, before, kernel = filters.shape
    conv = nn.Conv1d(before, after, kernel, bias=False)
    conv.weight = nn.Parameter(filters.clone(), requires_grad=False)
    return conv
