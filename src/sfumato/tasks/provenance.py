"""Provenance: what made a sound, as a line of JSON inside its file and inside the pictures of it.

It depends on nothing but what was asked for, so that equal commands write equal files, and it names files without
their folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato import __version__

if TYPE_CHECKING:
    from pydantic import BaseModel

LONGEST = 2000
"""Characters of the line at most."""
HASH_DIGITS = 16
TEXTS = ("prompt", "negative", "then", "kind")
"""Settings whose slashes are no folders."""
APART = ("seed", "count", "pictures")
"""Settings that are told elsewhere, or change no sound."""


@dataclass(frozen=True)
class Provenance:
    """What the sounds of one command have in common."""

    model: str
    """Its name."""
    sha256: str
    """Of the model."""
    seed: int | None = None
    source: str | None = None
    """Name of the sound that was given."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Those that differ from their defaults."""

    def line(self, how: Mapping[str, Any] | None = None, **which: int) -> str:
        """JSON of ASCII characters, `LONGEST` at most.

        What doesn't fit is left out, the longest value first, and named in `left_out`.

        Parameters
        ----------
        how
            What is particular to one sound.
        which
            Its number, or how many there are.
        """
        head: dict[str, Any] = {"sfumato": __version__, "model": self.model, "sha256": self.sha256[:HASH_DIGITS]}
        head |= {} if self.seed is None else {"seed": self.seed}
        head |= which | ({} if self.source is None else {"input": self.source})
        settings, particular, left_out = dict(self.settings), dict(how or {}), list[str]()
        while True:
            parts = {"settings": settings, "how": particular, "left_out": left_out}
            line = _json(head | {name: part for name, part in parts.items() if part})
            if len(line) <= LONGEST:
                return line
            sizes = {name: len(_json(value)) for name, value in ((settings | particular) or head).items()}
            left_out.append(max(sizes, key=lambda name: sizes[name]))
            for part in (settings, particular, head):
                part.pop(left_out[-1], None)


def provenance(model: str, sha256: str, settings: BaseModel, about: Mapping[str, Any]) -> Provenance:
    """What `settings` and what is known beside them tell of the sounds."""
    given = settings.model_dump(mode="json", exclude_defaults=True)
    told = {name: _named(name, value) for name, value in given.items() if name not in APART}
    source = Path(about["input"]).name if "input" in about else None
    return Provenance(model, sha256, getattr(settings, "seed", None), source, told)


def tags(line: str) -> dict[str, str]:
    """Tags of a sound file that hold it."""
    return {"software": f"sfumato {__version__}", "comment": line}


def _named(name: str, value: Any) -> Any:
    """A setting's value; a file without its folders."""
    return Path(value).name if isinstance(value, str) and "/" in value and name not in TEXTS else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
