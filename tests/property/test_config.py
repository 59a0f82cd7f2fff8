"""Settings: round trips, and errors that name the key and what is possible."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from sfumato.config import Settings, dump_yaml, load_yaml, override, parse, read_yaml
from sfumato.errors import InputError, ResourceError
from sfumato.files import write_atomically


class Inner(Settings):
    width: int = Field(8, ge=1, description="width")


class Outer(Settings):
    name: str = Field("", description="name")
    rate: float = Field(1.0, description="rate")
    sizes: tuple[int, ...] = Field((), description="sizes")
    inner: Inner = Field(Inner(), description="inner")


@settings(max_examples=60)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    sizes=st.lists(st.integers(-(2**40), 2**40)),
    width=st.integers(1, 2**40),
)
@example(name="a\x85b \u2028\n", rate=0.0, sizes=[], width=1)
def test_yaml_gives_back_what_was_written(tmp_path_factory, name, rate, sizes, width):
    path = tmp_path_factory.mktemp("yaml") / "settings.yaml"
    before = Outer(name=name, rate=rate, sizes=tuple(sizes), inner=Inner(width=width))
    dump_yaml(before, path)
    assert load_yaml(path, Outer) == before


def test_an_unknown_key_lists_the_possible_ones():
    with pytest.raises(InputError, match=r"unknown setting 'inner.widht'. Did you mean 'width'\? Possible here: width"):
        parse({"inner": {"widht": 3}}, Outer, "preset.yaml")
    with pytest.raises(InputError, match="Possible here: inner, name, rate, sizes"):
        parse({"zzz": 3}, Outer, "preset.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "fast"}, r"x\.yaml: rate = fast: .*number"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"inner": {"width": 0}}, r"inner\.width = 0: .*greater than or equal to 1"),
        ({"name": "a" * 999, "sizes": "b" * 999}, r"b\.\.\."),
    ],
)
def test_a_wrong_value_is_named_with_what_was_given(values, message):
    with pytest.raises(InputError, match=message):
        parse(values, Outer, "x.yaml")


def test_a_missing_key_is_named():
    class Needs(Settings):
        system: str = Field(description="system")

    with pytest.raises(InputError, match="'system' is missing"):
        parse({}, Needs, "x.yaml")


def test_settings_are_frozen_and_described():
    with pytest.raises(ValueError, match="frozen"):
        Inner().width = 3
    with pytest.raises(TypeError, match="without a description: bare"):

        class Undescribed(Settings):
            bare: int = 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: 1\na: 2", "given twice"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("[1, 2]", "mapping of names"),
        ("1: 2", "mapping of names"),
        ("a: [1", "not valid YAML"),
        ("", "mapping of names"),
        ("[" * 5000, "not valid YAML"),
        ("a: 2024-99-99", "not valid YAML"),
        ("? [1, 2]\n: 3", "not valid YAML|mapping of names"),
    ],
)
def test_foreign_yaml_is_a_typed_error(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_yaml(path)


def test_files_that_cannot_be_read_are_typed_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="can't be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b" " * (1 << 21))
    with pytest.raises(InputError, match="larger"):
        read_yaml(tmp_path / "large.yaml")


def test_assignments_lie_over_values_and_leave_them():
    values = {"inner": {"width": 1}, "name": "a"}
    changed = override(values, ["inner.width=5", "rate=2.5", "sizes=[1, 2]", "name=x=y"])
    assert changed == {"inner": {"width": 5}, "name": "x=y", "rate": 2.5, "sizes": [1, 2]}
    assert values == {"inner": {"width": 1}, "name": "a"}
    assert parse(changed, Outer, "--set").sizes == (1, 2)


@pytest.mark.parametrize("bad", ["width", "=3", "a..b=3", "name.x=3", "rate=[1", ".a=1"])
def test_a_wrong_assignment_is_a_typed_error(bad):
    with pytest.raises(InputError):
        override({"name": "a"}, [bad])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


def test_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (".a.yaml.tmp", ".a.yaml.part"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "a.yaml", b"new")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "a.yaml").read_bytes() == b"new" and not (tmp_path / "a.yaml").is_symlink()
