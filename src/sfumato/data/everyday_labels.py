"""What is heard in an everyday sound: words and a class, from its recipe or from the cleaned name of its file."""

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from sfumato.data.recipe import Source

CLASSES = {
    "footsteps": r"footsteps?|walking|running",
    "animal": (
        r"animal|\w*birds?|crow|cuckoo|lark|owl|wolf|growl|horse|camel|cattle|chicken|flamingo|lion|peacock|pig|sheep|"
        r"goat|elephant|bat|insect|crickets?|frog|dog|cat|duck|boar|moose|stag|coyote|ox|donkey|bite|snake|claws|wings|creature|"
        r"monster|dragon|gryphon|spider|hooves"
    ),
    "voice": r"man|woman|human|voice|scream|laugh|groan|wail|shout|moan|gasp|grunt|dwarf|elf|orc|goblin|troll|ogre",
    "weather": r"rain|wind|thunder|storm|snowstorm|lightning|gust",
    "water": r"water\w*|river|waves?|splash|drops|fountain|bubbl\w+|swimming|sea",
    "fire": r"fire|flames?|furnace|lava|torch|campfire|fuse|sparks",
    "explosion": r"explo\w+|grenade|collaps\w+|cannon|tnt|rumble",
    "gun": r"gun\w*|pistol|rifle|shotgun|machinegun|bullet|reload\w*|laser|plasma|rocket|sniper|bolter|needler|musket",
    "weapon": r"sword|axe|bow|arrow|spear|dagger|knife|mace|club|staff|sling|crossbow|hatchet|flail|blade|catapult",
    "door": r"doors?|gate|chest",
    "tool": r"saw\w*|hammer\w*|chopping|mining|digging|smith|stonecutting|sharpening|scythe|hoe|scissors|weaving",
    "breaking": r"break\w*|glass|shatter\w*|falling|impact|hit",
    "machine": r"engine|machine\w*|machinery|pump|fan|generator|motor|washing|vacuum|diesel|turbine|hum|drone",
    "instrument": r"horn|drums?|cymbal|cello|violin|bassoon|fanfare|trumpet|bell|bugle|jingle|drumkit|tomtom",
    "signal": r"alarm|alert|message|notification|beep|click|button|phone|camera|chat|login|error|radio|siren|interface",
    "magic": r"magic|spell|wand|enchanted|heal\w*",
    "ambience": r"ambience|night|morning|city|forest|jungle|farm|port|market|tavern|meadow|crowd",
    "other": r"(?!)",
}
"""What an everyday sound is, and the words that say so, whole words and the first class that fits."""

_SPELLED = {
    "fs": "footstep", "hstep": "footstep", "mstep": "hooves", "amb": "ambience of a", "con": "construction",
    "med": "medium", "fleshimp": "hit into flesh", "fleshstab": "stab into flesh", "jav": "javelin",
    "swordhit": "sword hit", "arrowfly": "flying arrow", "windgust": "gust of wind", "windleaves": "wind in leaves",
    "windstorm": "wind storm", "wavecrash": "crashing sea wave", "waverocky": "sea wave on rocks",
    "stonegate": "stone gate", "smove": "ship moving", "malehurt": "man hurt, groan", "maledeath": "man dying, groan",
    "femaledeath": "woman dying, scream", "femalehurt": "woman hurt, groan", "civfemscream": "woman's scream",
    "civfemdeath": "woman dying, scream", "civmaledeath": "man dying, groan", "civmalehurt": "man hurt, groan",
    "breakglass": "breaking glass", "breakwood": "breaking wood", "breakmetal": "breaking metal",
    "breakelectric": "breaking electric device", "smallfire": "small fire", "firesoft": "soft fire",
    "waterfontain": "water fountain", "minepump": "mine pump", "alienmachinery": "alien machinery",
    "alienpowermachinery": "alien machinery", "alienatmo": "alien ambience", "alienenergy": "alien energy hum",
    "aliencom": "alien radio", "alienwormhole": "alien wormhole", "arcticwind": "arctic wind",
    "bloodspiderwalk": "giant spider walking", "bodyimpact": "hit into a body", "flashbang": "flash bang",
    "smg": "submachine gun", "hmg": "heavy machine gun", "chaingun": "chain gun", "heavybolter": "heavy bolter gun",
    "heavyneedler": "heavy needler gun", "taserdouble": "taser", "airlaser": "laser gun", "airplasma": "plasma gun",
    "plasmaball": "plasma ball", "waterbullet": "bullet into water", "lasercannon": "laser cannon",
    "shotgunmini": "small shotgun", "flamer": "flame thrower", "ugv": "vehicle", "hoverheavy": "heavy hovering",
    "medikit": "medical kit", "hitground": "body falls to the ground", "humanflyby": "aircraft flying by",
    "alienflyby": "alien craft flying by", "sml": "small", "magicmissile": "magic missile",
    "thunderstick": "musket shot", "dragonstick": "fire gun", "faeriefire": "magic fire", "greatblue": "",
    "dialog": "notification", "lightningbolt": "lightning bolt and thunder", "drumkit": "drum kit",
    "benchsaw": "bench saw", "goldspin": "spinning wheel", "beerbubble": "bubbling beer",
    "winebubble": "bubbling wine", "biginn": "big tavern", "inn": "tavern", "toolsmith": "toolsmith hammering",
    "smith": "smith hammering", "goldping": "ping of gold", "ironping": "ping of iron", "stonegrind": "grinding stone",
    "ric": "ricochet", "tim": "", "curnt": "electric current", "neonhum": "neon hum",
    "machinerydrone": "machinery drone", "ignite": "lighting", "demonwind": "demonic wind",
    "rumbledrone": "rumbling drone", "ancientsdrone": "drone", "painwind": "howling wind", "fencegate": "fence gate",
    "tnt": "explosive", "im": "", "sys": "", "oxygen": "", "sms": "text message", "miss": "missing", "ugg": "grunt",
    "ra": "", "loop": "", "new": "", "generic": "", "gen": "", "atm": "ambience", "abnd": "abandoned", "ufoai": "",
    "x": "", "shot": "", "greg": "", "amd": "", "foorstep": "footstep", "mn": "", "newswav": "news",
    "die": "dying", "env": "",
    "sounds": "", "cf": "", "outline": "", "mono": "", "en": "", "gb": "",
}  # fmt: skip
"""Names of files, word by word, in plain English; an empty one says nothing about the sound."""


def everyday_labels(source: Source, path: str, work: str) -> dict[str, str]:
    """What is heard, its class, and the group of variants.

    Returns
    -------
    dict
        "sound": words such as "wolf growl", from the recipe or the file's name; "class", one of `CLASSES`; "group":
        the work, which variants of one sound share.
    """
    sound = sound_of(source, path)
    known = next((kind for pattern, kind in source.classes if fnmatchcase(path, pattern)), None)
    return {"sound": sound, "class": known or named_class(sound), "group": work}


def sound_of(source: Source, path: str) -> str:
    """What is heard in a file, in words: the recipe's, in which "{}" stands for the cleaned name of the file."""
    name = cleaned(PurePosixPath(path).stem)
    pattern = next((words for pattern, words in source.words if fnmatchcase(path, pattern)), "{}")
    words = re.sub(r"\s+", " ", pattern.replace("{}", name)).strip(" ,")
    return re.sub(r"\b(\w+)( \1\b)+", r"\1", words) or "sound"


def cleaned(name: str) -> str:
    """The words of a file's name: capitals and signs part them, digits and single letters go, short forms are spelled.

    Examples
    --------
    >>> cleaned("civfemscream02a")
    "woman's scream"
    >>> cleaned("Footstep_Grass_Running3")
    'footstep grass running'
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", re.sub(r"\d+[a-z]?\b|\d+x\b", " ", name)).lower().split()
    words = [_SPELLED.get(word, word) for word in parted if len(word) > 1]
    return re.sub(r"\s+", " ", " ".join(words)).strip(" ,")


def named_class(words: str) -> str:
    """The first of `CLASSES` one of whose words is among these."""
    return next((kind for kind, said in CLASSES.items() if re.search(rf"\b({said})\b", words.lower())), "other")
