"""Keys by all their names, and what is left of a wish that isn't given."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import InputError
from sfumato.wanted import KEYS, Wanted, key_number, nothing

SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


MODES = ["", "m", " minor", " major", "min"]


@given(st.sampled_from("CDEFGABcdefgab"), st.sampled_from(["", "#", "b"]), st.sampled_from(MODES))
def test_a_key_s_number_is_its_semitone_and_its_mode(letter, accidental, mode):
    semitone = (SEMITONES[letter.upper()] + {"": 0, "#": 1, "b": -1}[accidental]) % 12
    minor = mode.strip() in ("m", "minor", "min")
    assert key_number(f"{letter}{accidental}{mode}") == 1 + semitone + 12 * minor


def test_keys_come_back_from_their_names():
    assert [key_number(name) for name in KEYS[1:]] == list(range(1, 25))


@pytest.mark.parametrize("name", ["", "H", "any", "C##", "C maj7", "Cmm", "12", "C\n\nminor x"])
def test_what_is_no_key_is_refused(name):
    with pytest.raises(InputError, match=r"(?s)There is no key.* a note from A to G.* C, F#, Bb, Am, C#m"):
        key_number(name)


def test_of_what_is_not_given_nothing_is_left():
    every = torch.ones(2, 3, dtype=torch.bool)
    wanted = Wanted(torch.ones(2, 4), torch.ones(2, 3, 4), every, torch.tensor([90.0, 90.0]), torch.tensor([3, 3]))
    left = wanted.only(torch.tensor([True, False]))
    assert left.valid.tolist() == [[True] * 3, [False] * 3]
    assert left.bpm.tolist() == [90.0, 0.0] and left.key.tolist() == [3, 0]
    assert left.sentence.sum(dim=1).tolist() == [4.0, 0.0]
    none = nothing(2, 4)
    assert not none.sentence.any() and not none.valid.any() and not none.bpm.any() and not none.key.any()
