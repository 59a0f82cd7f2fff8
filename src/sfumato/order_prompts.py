"""Prompts that say what is heard when: ``<rock beat & start>@<piano melody & end>``, parsed and written.

One event is ``<words & place>``; "@" stands between events. A place is "start", "mid" or "end" (a third of the clip
each) or "all". Events of one place sound together.

References
----------
Huang et al., "Make-An-Audio 2: temporal-enhanced text-to-audio generation", arXiv 2305.18474, section 3.1: structured
captions made by a language model. Here they are written by the program that mixed the sounds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sfumato.errors import InputError

Place = Literal["start", "mid", "end", "all"]
PLACES: tuple[Place, ...] = get_args(Place)
SPANS: dict[Place, tuple[float, float]] = {
    "start": (0.0, 1 / 3), "mid": (1 / 3, 2 / 3), "end": (2 / 3, 1.0), "all": (0.0, 1.0),
}  # fmt: skip
"""Where a place lies, as shares of the clip."""
MAX_EVENTS = 16
_RESERVED = "<>@&"


@dataclass(frozen=True)
class Event:
    """What is heard, and where in the clip."""

    words: str
    place: Place


def parse(text: str) -> tuple[Event, ...]:
    """The events of a structured prompt.

    Raises
    ------
    InputError
        If it is not of the form ``<words & place>@<words & place>``; it says what is wrong and where.

    Examples
    --------
    >>> parse("<rain & all>@<dog barking & mid>")
    (Event(words='rain', place='all'), Event(words='dog barking', place='mid'))
    """
    if not text.strip():
        raise InputError("The prompt is empty. Write, for example, <rain & all>@<piano melody & end>.")
    pieces = text.split("@")
    if len(pieces) > MAX_EVENTS:
        raise InputError(f"The prompt has {len(pieces)} events; at most {MAX_EVENTS} are possible.")
    return tuple(_event(piece, number) for number, piece in enumerate(pieces, start=1))


def _event(piece: str, number: int) -> Event:
    """The event of one piece between two "@"."""
    given = piece.strip()
    if not given:
        raise InputError(f"Event {number} is empty: there is an @ too many.")
    if not (given.startswith("<") and given.endswith(">")):
        raise InputError(f"Event {number}, {given!r}, is not between < and >. Write <words & place>.")
    inner = given[1:-1]
    if "<" in inner or ">" in inner:
        raise InputError(f"Event {number}, {given!r}, holds a second < or >. Put an @ between events.")
    if inner.count("&") != 1:
        raise InputError(f"Event {number}, {given!r}, needs one & between its words and its place.")
    words, place = (part.strip() for part in inner.split("&"))
    known = next((one for one in PLACES if one == place.lower()), None)
    if known is None:
        raise InputError(f"Event {number}: there is no place {place!r}. Choose from: {', '.join(PLACES)}.")
    words = re.sub(r"\s+", " ", words)
    if not words:
        raise InputError(f"Event {number}, {given!r}, has no words before its &.")
    return Event(words, known)


def write(events: Sequence[Event]) -> str:
    """The structured prompt of some events; `parse` gives them back.

    Raises
    ------
    InputError
        If there are none or too many, or words are empty or hold one of the signs ``<>@&``.
    """
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InputError(f"{len(events)} events can't be written. Give 1 to {MAX_EVENTS}.")
    for event in events:
        used = sorted(set(event.words) & set(_RESERVED))
        if used or not event.words.strip():
            raise InputError(f"{event.words!r} can't be an event's words: no words, or {' '.join(used)} among them.")
    return "@".join(f"<{' '.join(event.words.split())} & {event.place}>" for event in events)


def check(text: str) -> None:
    """Refuse a prompt that holds < or > other than as events; plain words may stand before and after these.

    Raises
    ------
    InputError
        It says what is wrong, and the right form.

    Examples
    --------
    >>> check("slow, <rain & all>@<dog barking & mid>")
    """
    if "<" not in text and ">" not in text:
        return
    start, stop = max(0, text.find("<")), text.rfind(">") + 1 or len(text)
    if ">" in text[:start] or text[:start].rstrip().endswith("@"):
        start = 0
    if "<" in text[stop:] or text[stop:].lstrip().startswith("@"):
        stop = len(text)
    try:
        parse(text[start:stop])
    except InputError as error:
        raise InputError(
            f"{error} In a prompt, < and > order events: <rain & start>@<bell & end>, each at {', '.join(PLACES[:-1])} "
            f"or {PLACES[-1]}. Write it so, or leave these signs out."
        ) from None


def spoken(events: Sequence[Event]) -> str:
    """The same in plain words: "rock beat, then piano melody, with rain throughout"."""
    order = [[event.words for event in events if event.place == place] for place in ("start", "mid", "end")]
    told = ", then ".join(" and ".join(group) for group in order if group)
    through = " and ".join(event.words for event in events if event.place == "all")
    if told and through:
        return f"{told}, with {through} throughout"
    return told or through
