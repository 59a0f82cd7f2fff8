"""Structured prompts: what is written is parsed back, and everything that is wrong is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.data.order_prompts import PLACES, SPANS, Event, is_structured, parse, spoken, write
from sfumato.errors import InputError

WORD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="<>@&"), min_size=1, max_size=12)
EVENT = st.builds(Event, st.lists(WORD, min_size=1, max_size=4).map(" ".join), st.sampled_from(PLACES))
EVENTS = st.lists(EVENT, min_size=1, max_size=16).map(tuple)


@given(EVENTS)
def test_what_is_written_is_parsed_back(events: tuple[Event, ...]) -> None:
    text = write(events)
    assert parse(text) == events and write(parse(text)) == text and is_structured(text)


@given(EVENTS, st.sampled_from(("", " ", "\t ", "\n")))
def test_spaces_between_the_signs_do_not_matter(events: tuple[Event, ...], space: str) -> None:
    text = f"{space}@{space}".join(f"<{space}{e.words}{space}&{space}{e.place.upper()}{space}>" for e in events)
    assert parse(space + text + space) == events


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        events = parse(text)
    except InputError as error:
        assert str(error)
    else:
        assert parse(write(events)) == events


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("piano", "Event 1, 'piano', is not between < and >"),
        ("<piano & start>@", "Event 2 is empty"),
        ("<piano & start>@@<rain & end>", "Event 2 is empty"),
        ("<piano & start> <rain & end>", "second < or >"),
        ("<piano start>", "needs one &"),
        ("<rock & roll & start>", "needs one &"),
        ("<piano & later>", "no place 'later'. Choose from: start, mid, end, all"),
        ("< & start>", "no words before"),
        ("@".join(["<a & all>"] * 17), "17 events; at most 16"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse(text)
    assert reason in str(refusal.value)


@pytest.mark.parametrize("events", [(), (Event("", "all"),), (Event("rock & roll", "all"),), (Event("a", "all"),) * 17])
def test_what_can_not_be_written_is_refused(events: tuple[Event, ...]) -> None:
    with pytest.raises(InputError, match="can't be"):
        write(events)


def test_the_same_in_plain_words() -> None:
    assert spoken(parse("<rock beat & start>@<piano melody & end>")) == "rock beat, then piano melody"
    assert spoken(parse("<b & end>@<rain & all>@<a & start>@<c & mid>")) == "a, then c, then b, with rain throughout"
    assert spoken(parse("<rain & all>@<wind & all>")) == "rain and wind"
    assert SPANS["start"][1] == SPANS["mid"][0] and SPANS["mid"][1] == SPANS["end"][0] and SPANS["all"] == (0.0, 1.0)
