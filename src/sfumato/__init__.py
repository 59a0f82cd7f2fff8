"""Audio diffusion that knows how sure it is: repair damaged recordings.

`sfumato.repair(path, gaps=...)` fills gaps, `sfumato.detect(path)` looks for fills, `sfumato.load(name)` loads a model.
Importing this package loads no torch; the first use of a name does.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sfumato.errors import (
    CalibrationError,
    InputError,
    MissingExtraError,
    ModelError,
    ResourceError,
    SfumatoError,
)

if TYPE_CHECKING:
    from sfumato.model import load
    from sfumato.tasks.codec import decode, encode
    from sfumato.tasks.detect import detect
    from sfumato.tasks.generate import generate
    from sfumato.tasks.repair import repair
    from sfumato.tasks.transform import transform

__version__ = version("sfumato")
__all__ = [
    "CalibrationError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "ResourceError",
    "SfumatoError",
    "decode",
    "detect",
    "encode",
    "generate",
    "load",
    "repair",
    "transform",
]

_LAZY = {
    "decode": "sfumato.tasks.codec",
    "detect": "sfumato.tasks.detect",
    "encode": "sfumato.tasks.codec",
    "generate": "sfumato.tasks.generate",
    "load": "sfumato.model",
    "repair": "sfumato.tasks.repair",
    "transform": "sfumato.tasks.transform",
}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on its first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'sfumato' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, the lazy ones included."""
    return sorted({*globals(), *_LAZY})
