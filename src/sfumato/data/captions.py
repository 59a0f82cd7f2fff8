"""Captions of recordings, offline: candidates from labels and tags, from "piano" to all that is known.

Every caption is a pure function of (seed, recording): the templates and synonyms that a recording gets depend on
nothing else. A text–audio model may rank them (`sfumato.data.caption_choice`); mixing recombines them
(`sfumato.data.mixing`).

References
----------
Huang et al., "Make-An-Audio", ICML 2023, arXiv 2301.12661, section 3.2: distil, then reprogram.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.order_prompts import parse, spoken

MAX_CAPTIONS = 64
SLOW, FAST = 80, 130
"""Beats per minute below which a tempo is slow, and from which it is fast."""


def chooser_of(seed: int, name: str) -> np.random.Generator:
    """The generator of one recording, from the seed and its name alone."""
    key = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)
    return np.random.Generator(np.random.Philox(key=np.array([seed, key], np.uint64)))


def name_of(row: Row) -> str:
    """How captions and tags name a recording."""
    return f"{row.source}/{row.recording}"


def candidates(row: Row, tags: Sequence[str] = (), seed: int = 0, count: int = 8) -> list[str]:
    """Different captions of a recording, the shortest first; as many as there are, `count` at most.

    Parameters
    ----------
    row
        A row of a manifest; what its labels say decides the templates.
    tags
        Pseudo-labels of music, surest first (`sfumato.data.tags`).
    seed, count
        Choice of templates and synonyms.

    Raises
    ------
    InputError
        If `count` is not from 1 to 64.
    """
    if not 1 <= count <= MAX_CAPTIONS:
        raise InputError(f"{count} captions of each recording are not possible. Give 1 to {MAX_CAPTIONS}.")
    random = chooser_of(seed, name_of(row))
    made: dict[str, None] = {}
    for attempt in range(8 * count):
        text = _written(row, tags, attempt % 4, random)
        if text:
            made.setdefault(_plain(text), None)
        if len(made) == count:
            break
    return sorted(made, key=len)


def _plain(text: str) -> str:
    return " ".join(text.replace(" ,", ",").split())


def _one(among: Sequence[str], random: np.random.Generator) -> str:
    return among[int(random.integers(len(among)))]


def _a(words: str) -> str:
    """Words with an indefinite article."""
    return f"{'an' if words[:1].lower() in tuple('aeiou8') else 'a'} {words}"


def _written(row: Row, tags: Sequence[str], detail: int, random: np.random.Generator) -> str:
    """One caption, of a detail from 0 (a word or two) to 3 (all that is known)."""
    labels = row.labels
    if "form" in labels and "textures" in labels:
        return _study(row, detail, random)
    if "sound" in labels:
        return _everyday(labels, detail, random)
    if "kit" in labels:
        return _one_shot(labels, detail, random)
    if row.rendered:
        return _score(labels, detail, random)
    return _music(labels, tags, detail, random)


INSTRUMENTS = {
    "piano": ("piano", "grand piano", "acoustic piano"),
    "electric piano": ("electric piano", "Rhodes piano"),
    "acoustic guitar": ("acoustic guitar", "nylon-string guitar", "classical guitar"),
    "distorted guitar": ("distorted guitar", "distorted electric guitar"),
    "string ensemble": ("string ensemble", "strings", "string section"),
    "double bass": ("double bass", "upright bass", "acoustic bass"),
    "electric bass": ("electric bass", "bass guitar"),
    "synth bass": ("synth bass", "synthesizer bass"),
    "synth lead": ("synth lead", "synthesizer lead"),
    "synth pad": ("synth pad", "soft synthesizer pad"),
    "saxophone": ("saxophone", "alto saxophone", "sax"),
    "choir": ("choir", "choir voices"),
    "brass section": ("brass section", "brass"),
    "acoustic drums": ("acoustic drums", "drums", "a drum kit"),
    "rock drums": ("rock drums", "drums", "powerful drums"),
    "electronic drums": ("electronic drums", "drum machine"),
    "808 drum machine": ("808 drum machine", "drum machine", "808 drums"),
    "jazz drums": ("jazz drums", "drums"),
    "brushed drums": ("brushed drums", "drums played with brushes"),
}
"""Instruments by their label, and what else they are called; others keep their name."""

TEXTURES = {
    "melody": ("{} melody", "melody on {}", "{} playing a melody", "{} tune"),
    "melody with chords": ("{} melody with chords", "{} playing a melody over chords", "{} melody and chords"),
    "scale": ("{} scale", "{} playing scales", "{} running up and down a scale"),
    "arpeggio": ("{} arpeggio", "{} arpeggios", "broken chords on {}"),
    "chords": ("{} chords", "chords on {}", "{} playing chords"),
    "ostinato": ("{} ostinato", "{} riff", "repeating figure on {}"),
    "drone": ("{} drone", "held {} tone", "sustained {} note"),
    "bass line": ("{} line", "{} playing a bass line", "bass line on {}"),
}
"""Textures by their label, and how they are said of an instrument."""

LOUDNESS = {
    "very quiet": ("very quiet", "hushed", "very soft"),
    "quiet": ("quiet", "soft", "gentle"),
    "moderately loud": ("",),
    "loud": ("loud", "strong", "energetic"),
    "very loud": ("very loud", "powerful"),
}
SHAPES = {"crescendo": ("growing louder", "with a crescendo"), "diminuendo": ("fading", "growing softer")}


def pace(tempo: int) -> tuple[str, ...]:
    """What a tempo in beats per minute is called."""
    return ("slow",) if tempo < SLOW else ("fast", "quick") if tempo >= FAST else ("mid-tempo", "moderate")


def _study(row: Row, detail: int, random: np.random.Generator) -> str:
    """A caption of a study: who plays what, and as details grow style, pace, loudness, key and tempo."""
    labels = row.labels
    names, textures = labels["instruments"].split("; "), labels["textures"].split("; ")
    players = [_one(INSTRUMENTS.get(name, (name,)), random) for name in names]
    if detail == 0:
        return " and ".join(players)
    told = [_said(player, texture, random) for player, texture in zip(players, textures, strict=True)]
    body = told[0] if len(told) == 1 else _joined(labels["form"], told, random)
    if detail == 1:
        return body
    slow = _one(pace(int(labels["tempo"])), random)
    level = _one(LOUDNESS[labels["loudness"]], random)
    before = ", ".join(word for word in (slow, level) if word)
    text = f"{_a(f'{before} {body}')}" if len(told) == 1 and body[0] != "a" else f"{before}: {body}"
    if "style" in labels and random.random() < 0.5:
        text += f", {labels['style']} style"
    if labels["dynamics"] != "steady":
        text += f", {_one(SHAPES[labels['dynamics']], random)}"
    if detail == 3:
        if "key" in labels:
            text += f" in {labels['key']} {labels.get('mode', '')}".rstrip()
        text += _one((f" at {labels['tempo']} bpm", f", {labels['tempo']} BPM"), random)
        if labels["metre"] == "3/4":
            text += " in three-four time"
    return text


def _said(player: str, texture: str, random: np.random.Generator) -> str:
    if texture.endswith(" beat"):
        return _one((f"{texture} on {player.removeprefix('a ')}", f"{player.removeprefix('a ')}, {texture}"), random)
    return _one(TEXTURES[texture], random).format(player)


def _joined(form: str, told: Sequence[str], random: np.random.Generator) -> str:
    """Two parts in their order."""
    first, second = told
    ways = {
        "together": ("{0} with {1}", "{0} and {1}", "{1} over {0}"),
        "sequence": ("{0}, then {1}", "first {0}, then {1}", "{0} followed by {1}"),
        "joining": ("{0}, joined by {1}", "{0}, later with {1}", "first {0} alone, then with {1}"),
    }[form]
    return _one(ways, random).format(first, second)


def _everyday(labels: Mapping[str, str], detail: int, random: np.random.Generator) -> str:
    """A caption of an everyday sound."""
    sound, kind = labels["sound"], labels.get("class", "other")
    if detail == 0:
        return sound
    if detail == 1:
        return _one((f"sound of {sound}", f"the sound of {_a(sound)}", f"{sound} sound"), random)
    if detail == 2:
        return _one((f"a recording of {_a(sound)}", f"{sound}, sound effect", f"{_a(sound)} is heard"), random)
    named = "" if kind == "other" or kind in sound else f"{kind} sound: "
    text = labels.get("text", "").rstrip(".")
    return f"{named}{sound}" + (f" ({text.lower()})" if text and random.random() < 0.5 else "")


def _one_shot(labels: Mapping[str, str], detail: int, random: np.random.Generator) -> str:
    """A caption of a drum or another short sound."""
    kind = {"hat": "hi-hat", "kick": "kick drum", "snare": "snare drum", "hand": "hand drum", "tom": "tom drum"}.get(
        labels["class"], labels["class"]
    )
    if kind == "other":
        kind = "short sound"
    if labels.get("form") == "loop":
        return _one((f"{kind}", "drum loop", "a loop of drums"), random) if kind == "loop" else f"{kind} loop"
    ways = (kind, f"single {kind}", f"{_a(kind)} hit", f"one-shot sample of {_a(kind)}")
    return ways[detail]


def _score(labels: Mapping[str, str], detail: int, random: np.random.Generator) -> str:
    """A caption of a rendered score."""
    piano = labels.get("arrangement") == "piano"
    composer = labels.get("composer", "").split("_")[0].title()
    if detail == 0:
        return "piano" if piano else "classical music"
    ways = ("solo piano", "piano music", "classical piano") if piano else ("classical ensemble", "chamber music")
    what = _one(ways, random)
    if detail == 1 or not composer:
        return what
    return _one((f"{what} by {composer}", f"{what} in the style of {composer}", f"{composer}, {what}"), random)


def _music(labels: Mapping[str, str], tags: Sequence[str], detail: int, random: np.random.Generator) -> str:
    """A caption of recorded music: style labels and tags, the surest first."""
    styles = [style.strip() for style in labels.get("style", "").split(",") if style.strip()]
    words = [*dict.fromkeys((*tags, *styles))]
    if not words:
        return "music"
    if detail == 0:
        return f"{words[0]} music"
    chosen = [words[i] for i in sorted(random.permutation(len(words))[: detail + 1])]
    if len(chosen) == 1:
        return _one((f"{chosen[0]} music", f"a piece of {chosen[0]} music"), random)
    joined = f"{', '.join(chosen[:-1])} and {chosen[-1]}"
    return _one((f"music with {joined}", f"{joined} music", f"instrumental piece, {', '.join(chosen)}"), random)


def in_words(prompt: str) -> str:
    """A structured prompt in plain words; any other text as it is."""
    return spoken(parse(prompt)) if prompt.lstrip().startswith("<") else prompt
