"""What a one-shot is: kick, snare, tone and so on, told by its recipe or by the words of its file's name."""

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from sfumato.data.recipe import Source

LONG_S = 4.0
CLASSES = {
    "loop": r"loop|beat",
    "kick": r"kick|bd|bass ?drum|k",
    "clap": r"clap",
    "snare": r"\w*snare|sn|sd|sr|rimshot",
    "hat": r"\w*hat|hh\w*|chh|ohh|ho",
    "tom": r"\w*tom|tomh|tm|ft|t",
    "cymbal": r"cymbal|crash|cra|ride|rd|china|splash|paiste|cc|rc",
    "hand": r"djembe|dununba|sangban|kenkeni|conga|bongo|tabla|cajon",
    "percussion": (
        r"cowbell|cb|agogo|rim|rs|stick|sidestick|click|clave?|shaker|maraca|tambourine|wood\w*|waterglass|triangle|"
        r"fingersnap|snaph?|metronome|tick|bell|chime|perc|drum|whistle"
    ),
    "bass": r"bass",
    "effect": r"zap|fx|[xy]fx|noise",
    "tone": r"piano|organ|guitar|string|synth",
    "other": r"(?!)",
}
"""What a one-shot is, and the words of file names that say so, whole words and the first class that fits."""


def one_shot_labels(source: Source, path: str, work: str, seconds: float) -> dict[str, str]:
    """Kit, class and form of a short sound.

    Returns
    -------
    dict
        "kit"; "class", one of `CLASSES`, from the recipe or the file's name; "form": "loop", "long" (lasts more than
        4 s and is no loop, such as a cymbal or a pad), or "one-shot".
    """
    known = next((kind for pattern, kind in source.classes if fnmatchcase(path, pattern)), None) or _named_class(path)
    form = "loop" if known == "loop" else "long" if seconds > LONG_S else "one-shot"
    return {"kit": work, "class": known, "form": form}


def _named_class(path: str) -> str:
    """The first of `CLASSES` whose words are in a file's name."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", PurePosixPath(path).stem).lower()
    return next((kind for kind, words in CLASSES.items() if re.search(rf"\b({words})\b", spaced)), "other")
