"""Structured prompts: what is written is parsed back, and everything that is wrong is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import InputError
from sfumato.order_prompts import PLACES, SPANS, Event, check, parse, spoken, write

WORD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="<>@&"), min_size=1, max_size=12)
EVENT = st.builds(Event, st.lists(WORD, min_size=1, max_size=4).map(" ".join), st.sampled_from(PLACES))
EVENTS = st.lists(EVENT, min_size=1, max_size=16).map(tuple)


@given(EVENTS)
def test_what_is_written_is_parsed_back(events: tuple[Event, ...]) -> None:
    text = write(events)
    assert parse(text) == events and write(parse(text)) == text
    check(f"slow {text} (loud)")


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


@given(st.text("<>@& ab", max_size=20))
def test_a_prompt_that_passes_has_no_sign_outside_its_events(text: str) -> None:
    try:
        check(text)
    except InputError as refusal:
        assert "<rain & start>@<bell & end>" in str(refusal)
    else:
        assert text.count("<") == text.count(">") <= text.count("&")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<rain & start>@<bell", "Event 2, '<bell', is not between < and >"),
        ("<rain & start", "is not between < and >"),
        ("slow @<rain & start>", "Event 1, 'slow', is not between"),
        ("<rain & start>@", "Event 2 is empty"),
        ("<rain & start> <bell & end>", "Put an @ between events"),
        ("<rain & later>", "no place 'later'"),
        ("drums -> piano", "'drums ->', is not between"),
        ("rain> <bell & end>", "Event 1, 'rain> <bell & end>', is not between"),
        ("<rain & start> then <bell", "Event 1, '<rain & start> then <bell', is not between"),
        ("I <3 pianos", "'<3 pianos', is not between"),
    ],
)
def test_a_prompt_is_an_order_or_has_none_of_its_signs(text: str, reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        check(text)
    assert reason in str(refusal.value) and "start, mid, end or all" in str(refusal.value)


@pytest.mark.parametrize("text", ["", "rock & roll @ 9", "<rain & start> @ <bell & END>", " slow <rain & all> (drum)"])
def test_what_is_an_order_or_plain_words_passes(text: str) -> None:
    check(text)


@pytest.mark.parametrize("events", [(), (Event("", "all"),), (Event("rock & roll", "all"),), (Event("a", "all"),) * 17])
def test_what_can_not_be_written_is_refused(events: tuple[Event, ...]) -> None:
    with pytest.raises(InputError, match="can't be"):
        write(events)


def test_the_same_in_plain_words() -> None:
    assert spoken(parse("<rock beat & start>@<piano melody & end>")) == "rock beat, then piano melody"
    assert spoken(parse("<b & end>@<rain & all>@<a & start>@<c & mid>")) == "a, then c, then b, with rain throughout"
    assert spoken(parse("<rain & all>@<wind & all>")) == "rain and wind"
    assert SPANS["start"][1] == SPANS["mid"][0] and SPANS["mid"][1] == SPANS["end"][0] and SPANS["all"] == (0.0, 1.0)
