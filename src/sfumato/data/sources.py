"""Recipes for the openly licensed music and sounds that sfumato's small models are trained on.

A recipe names a Debian package, its version and SHA-256, which files in it are wanted, and how they are labelled.
No audio is kept in the repository: `sfumato.data.fetch` brings the package, `sfumato.data.build` decodes it.
"""

from sfumato.data.everyday_sources import EVERYDAY
from sfumato.data.recipe import Source

# Not its "shapes" and "waveforms", which are single periods for oscillators.
_LMMS_FOLDERS = ("basses", "bassloops", "beats", "drums", "effects", "instruments", "latin", "misc", "stringsnpads")
_ALBUM_LICENCE = "CC-BY-SA-3.0 or GPL-2+"

MUSIC_AND_ONE_SHOTS: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="warzone2100",
            package="warzone2100-music",
            version="4.3.3-3",
            sha256="d3b2c9f90ea5438d45d4aff18339a03ec808e1affa9dac91f7dad61cb15ee64e",
            megabytes=86,
            folder="usr/share/games/warzone2100/music",
            patterns=("menu.opus", "albums/*/*.opus"),
            attribution="Warzone 2100 soundtracks by Martin Severn (1999) and LupusMechanicus (2019-2022)",
            licences=(
                ("*/track3_enhanced.opus", "GPL-2+"),
                ("albums/aftermath_soundtrack/*", _ALBUM_LICENCE),
                ("albums/legacy_soundtrack/*", _ALBUM_LICENCE),
            ),
            labels=(("style", "electronic, ambient, film score"),),
            works=(("*menu*", "menu"), ("*track3*", "track3")),
        ),
        Source(
            name="gamine",
            package="gamine-data",
            version="1.6-1",
            sha256="120e5aec63d23e5f46cd20d1aed100054a2d0663cfdd462c5e617743b775f6c7",
            megabytes=5,
            folder="usr/share/games/gamine/sounds",
            patterns=("BachJSBrandenburgConcertNo2inFMajorBWV1047mvmt1.ogg",),
            upstream="sounds/",
            attribution="Bach, Brandenburg Concerto 2, first movement: computer performance by T. Willhoite",
            labels=(("style", "baroque, orchestra"), ("performance", "computer")),
        ),
        Source(
            name="widelands",
            package="widelands-data",
            version="2:1.1-3",
            sha256="0e23d645b15bcfb9e3bcae0de9bc1bdfa75a6ecb36b2e449759d6eb0b4bbd8fb",
            megabytes=381,
            folder="usr/share/games/widelands/data/music",
            patterns=("*.ogg",),
            upstream="data/music/",
            attribution="Widelands music by the Widelands Development Team and Stuart Marshall",
            labels=(("style", "orchestral, folk"),),
            works=(("menu", "ingame_14"),),
        ),
        Source(
            name="supertuxkart",
            package="supertuxkart-data",
            version="1.4+dfsg-2",
            sha256="568d69cda50dc8ad1facb89514bd14953dfca736fdb83c49ae330b0aa7dd2364",
            megabytes=628,
            folder="usr/share/games/supertuxkart/data",
            patterns=(
                "music/*.ogg",
                "tracks/ancient_colosseum_labyrinth/Battle_Theme_1.ogg",
                "tracks/battleisland/Gran_Paradiso_Unused*.ogg",
                "tracks/cave/beneath_the_rabbit_hole.ogg",
            ),
            upstream="data/",
            attribution=(
                "SuperTuxKart music by 0zone0ne, Krobonil (Chris Leutwyler), Claude Werner, DJ Helium, Weirwood, "
                "Keith Baylis, Speedsound, GeekPenguinBR, Heuchi1, Kalsan, Dundersylt, Magne Djupvik, Max Freeman, "
                "Bart Kelsey, Jason Lavallée"
            ),
            labels=(("style", "game, pop, folk"),),
            variant=r"(_fast|_f)$",
            works=(("*[Gg]ran_[Pp]aradiso*", "gran_paradiso"), ("*race_win_theme*", "win_theme")),
            min_seconds=30.0,
        ),
        Source(
            name="ufoai",
            package="ufoai-music",
            version="2.5-2",
            sha256="2465d55e9dce75a3a2a1ad1c8ca67da84e251c04e0965d63a8562b2d9f76f9e6",
            megabytes=210,
            folder="usr/share/games/ufoai/base",
            patterns=("music/*.ogg",),
            archive="0music.pk3",
            upstream="base/",
            attribution=(
                "UFO: Alien Invasion music by Crystan (Christian Hoffmann), Marine Baklund, Simon Green (Psymong), "
                "Manuel Marino (Vanethian), David Reeves, Karl Macklin, azrael1322, Slippycurb, Gren, Al Riddoch, "
                "Alex Parker, Paul Bee, Karen Rei Pease, Draikon, OpenArena, Nexuiz, Independent.nu, Golgotha"
            ),
            labels=(("style", "electronic, ambient, metal"),),
            variant=r"(?<=Battlescape)\d+$|(?<=Geosphere)\d+$|(?<=ufo)\d$|-(battle|normal)-.*$",
            works=(("*van_*", "vanethian"),),
        ),
        Source(
            name="0ad",
            package="0ad-data",
            version="0.0.26-1",
            sha256="53745ae74d05bccf6783400fa98f3932b21729ab9d2e86151aa2c331c3455178",
            megabytes=1378,
            folder="usr/share/games/0ad/mods/public",
            patterns=("audio/music/*.ogg",),
            archive="public.zip",
            attribution="0 A.D. music by Wildfire Games (Omri Lahav, Jeff Willet, Mike Skalandunas, Shlomi Nogay)",
            labels=(("style", "orchestral, folk, world"),),
            variant=r"_\d+$",
        ),
        Source(
            name="hydrogen-drumkits",
            package="hydrogen-drumkits",
            version="2017.09.19~dfsg-1",
            sha256="6ea3c6df9a67762e2362f946c695e619859126b19fbccf32a2e8f07dfd03b2f4",
            megabytes=143,
            folder="usr/share/hydrogen/data/drumkits",
            patterns=("*/*.wav", "*/*.flac", "*/*.aiff"),
            attribution=(
                "Hydrogen drum kits by Artemiy Pavlov, Emiliano Grilli, Marcos Guglielmetti, Jim Harney, Luc Tanguay, "
                "Glen MacArthur, Emanuel Rumpf, audiophobdubstep, Vladimir Sadovnikov and Alexander Belokurov"
            ),
            licences=(
                ("Audiophob/*", "CC0"),
                ("BJA_Pacific/*", "CC-BY-SA-3.0-us"),
                ("ColomboAcousticDrumkit/*", "GPL-2+ with composition exception"),
                ("ElectricEmpireKit/*", "GPL-2+"),
                ("HardElectro1/*", "GPL-2+"),
                ("VariBreaks/*", "GPL-2+"),
                ("circAfrique v4/*", "CC-BY-SA-3.0"),
                ("rumpf_kit_z01_h2/*", "CC-BY-3.0"),
                ("ForzeeStereo/*", "GPL-2"),
                ("Gimme A Hand 1.0/*", "GPL-2"),
                ("The Black Pearl 1.0/*", "GPL-2"),
                ("Millo*/*", "GPL-2"),
            ),
            works=(
                ("Audiophob_*", "audiophob"),
                ("BJA_Pacific_*", "bja_pacific"),
                ("ColomboAcousticDrumkit_*", "colombo"),
                ("ElectricEmpireKit_*", "electric_empire"),
                ("HardElectro1_*", "hard_electro"),
                ("VariBreaks_*", "vari_breaks"),
                ("circAfrique_*", "circ_afrique"),
                ("rumpf_kit_*", "rumpf"),
                ("ForzeeStereo_*", "forzee"),
                ("Gimme_A_Hand_*", "macarthur"),  # They share a clap.
                ("The_Black_Pearl_*", "macarthur"),
                ("Millo*", "millo"),
            ),
            min_seconds=0.03,
            kind="one-shots",
            # What the kits' own drumkit.xml calls the files whose names don't say.
            classes=(
                ("BJA_Pacific/CB*", "cymbal"),
                ("BJA_Pacific/BL*", "cymbal"),
                ("Audiophob/86335__*", "kick"),
                ("Audiophob/29800__*", "clap"),
                ("Audiophob/15590__*", "cymbal"),
                ("Audiophob/156272__*", "hat"),
                ("Audiophob/122557__*", "percussion"),
                ("rumpf_kit_z01_h2/beats_06-38.flac", "kick"),
                ("rumpf_kit_z01_h2/beats_06-46.flac", "kick"),
                ("rumpf_kit_z01_h2/beats_07-18.flac", "kick"),
                ("rumpf_kit_z01_h2/beats_07-20.flac", "kick"),
                ("rumpf_kit_z01_h2/beats_01-21.flac", "snare"),
                ("rumpf_kit_z01_h2/beats_06-25.flac", "snare"),
                ("rumpf_kit_z01_h2/beats_01-26.flac", "clap"),
                ("rumpf_kit_z01_h2/beats_09-10.flac", "hat"),
                ("rumpf_kit_z01_h2/beats_06-28.flac", "hat"),
                ("rumpf_kit_z01_h2/beats_08-31.flac", "hat"),
                ("rumpf_kit_z01_h2/beats_08-1[789].flac", "tom"),
                ("rumpf_kit_z01_h2/beats_06-43.flac", "cymbal"),
                ("rumpf_kit_z01_h2/beats_08-20.flac", "cymbal"),
                ("rumpf_kit_z01_h2/beats_06-[34]0.flac", "cymbal"),
                ("rumpf_kit_z01_h2/*", "percussion"),
            ),
            # Of eleven works, hashes would give three to a test split of half the sounds, and validation almost none.
            splits=(
                ("audiophob", "train"),
                ("circ_afrique", "train"),
                ("electric_empire", "train"),
                ("forzee", "train"),
                ("hard_electro", "train"),
                ("macarthur", "train"),
                ("rumpf", "train"),
                ("vari_breaks", "train"),
                ("millo", "validation"),
                ("colombo", "calibration"),
                ("bja_pacific", "test"),
            ),
        ),
        Source(
            name="sonic-pi-samples",
            package="sonic-pi-samples",
            version="3.2.2~repack-8",
            sha256="25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
            megabytes=22,
            folder="usr/share/sonic-pi/samples",
            patterns=("*.flac",),
            upstream="etc/samples/",
            attribution="Sonic Pi's samples, by many authors of freesound.org",
            variant=r"_.*$",
            min_seconds=0.03,
            kind="one-shots",
            classes=(
                ("loop_*", "loop"),
                ("drum_bass_*", "kick"),
                ("drum_roll*", "snare"),
                ("bass_*", "bass"),
                ("guit_*", "tone"),
                ("tabla_*", "hand"),
                ("perc_*", "percussion"),
                ("ambi_*", "effect"),
                ("glitch_*", "effect"),
                ("mehackit_*", "effect"),
                ("misc_*", "effect"),
                ("vinyl_*", "effect"),
            ),
        ),
        Source(
            name="lmms-common",
            package="lmms-common",
            version="1.2.2+dfsg1-6",
            sha256="7d9aa55dd05f11edc57104203ee1c350e3e41f8936ab3741da2bb1158fd46c37",
            megabytes=8,
            folder="usr/share/lmms/samples",
            patterns=tuple(f"{folder}/*.ogg" for folder in _LMMS_FOLDERS),
            upstream="data/samples/",
            attribution="LMMS samples by Tobias Doerffel and the LMMS developers",
            variant=r"_.*$",
            min_seconds=0.03,
            kind="one-shots",
            classes=(
                ("bassloops/*", "loop"),
                ("beats/*", "loop"),
                ("basses/*", "bass"),
                ("instruments/bass*", "bass"),
                ("instruments/*", "tone"),
                ("latin/*", "tone"),
                ("stringsnpads/*", "tone"),
                ("effects/*", "effect"),
            ),
        ),
    )
}

SOURCES: dict[str, Source] = MUSIC_AND_ONE_SHOTS | EVERYDAY

SOUNDFONTS: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="fluidr3",
            package="fluid-soundfont-gm",
            version="3.1-5.3",
            sha256="6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e",
            megabytes=120,
            folder="usr/share/sounds/sf2",
            patterns=("FluidR3_GM.sf2",),
            attribution="FluidR3 GM soundfont by Frank Wen and others",
        ),
        Source(
            name="timgm6mb",
            package="timgm6mb-soundfont",
            version="1.3-5",
            sha256="034abdfb296d9353433513dad5dbdcab46425ee6008fc02fe7039b46e75edc54",
            megabytes=5,
            folder="usr/share/sounds/sf2",
            patterns=("TimGM6mb.sf2",),
            attribution="TimGM6mb soundfont by Tim Brechbill",
        ),
    )
}


def sources() -> tuple[Source, ...]:
    """Every recipe, in the order in which they are built: music, one-shots, everyday sounds."""
    return tuple(SOURCES.values())
