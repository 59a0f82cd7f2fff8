"""Mixtures hold each sound where their captions say, and depend on seed and item alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data.mixing import PLANS, Sound, mixture
from sfumato.errors import InputError
from sfumato.order_prompts import SPANS, parse

RATE = 1000
HZ = {"low hum": 50.0, "tone": 150.0, "high whistle": 350.0}


def tone(words: str, seconds: float) -> Sound:
    t = np.arange(round(seconds * 50) * RATE // 50) / RATE  # whole periods, so that repeats go on in phase
    return Sound(np.sin(2 * np.pi * HZ[words] * t).astype(np.float32)[None] * 0.01, words)


def level(audio: np.ndarray, hz: float) -> float:
    """Amplitude of a sine in mono audio."""
    t = np.arange(len(audio)) / RATE
    return 2 * float(np.abs(np.mean(audio * np.exp(-2j * np.pi * hz * t))))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 10**6), st.floats(0.4, 6), st.floats(3, 12))
def test_sounds_are_where_the_caption_says(seed: int, item: int, length: float, seconds: float) -> None:
    sounds = [tone(words, length) for words in HZ]
    made = mixture(sounds, seconds, RATE, seed, item)
    n = round(seconds * RATE)
    assert made.audio.shape == (1, n) and np.abs(made.audio).max() <= 1 and made.audio.dtype == np.float32
    events = parse(made.structured)
    assert tuple(event.place for event in events) in PLANS and len({event.words for event in events}) == len(events)
    assert [part.words for part in made.parts] == [event.words for event in events]
    assert all(event.words in made.plain for event in events)
    for event, part in zip(events, made.parts, strict=True):
        first, last = (round(share * n) for share in SPANS[event.place])
        start, stop = round(part.start_s * RATE), round(part.stop_s * RATE)
        assert first <= start < stop <= last
        if event.place == "all":
            assert (start, stop) == (0, n)
        assert level(made.audio[0, start : stop - 20], HZ[event.words]) > 0.1
    for words, hz in HZ.items():
        if words not in made.plain:
            assert level(made.audio[0], hz) < 0.02


def test_order_in_plain_words_is_the_order_in_time() -> None:
    sounds = [tone(words, 0.5) for words in HZ]
    seen = set()
    for item in range(300):
        made = mixture(sounds, 3, RATE, 1, item)
        events = parse(made.structured)
        seen.add(tuple(event.place for event in events))
        if "followed by" in made.plain or (", then" in made.plain and "all" not in made.structured):
            starts = {part.words: part.start_s for part in made.parts}
            order = sorted(starts, key=lambda words: made.plain.index(words))
            assert [starts[words] for words in order] == sorted(starts.values())
        if " after " in made.plain:
            later, earlier = made.plain.split(" after ")
            starts = {part.words: part.start_s for part in made.parts}
            assert starts[later] > starts[earlier]
        if "in the background" in made.plain:
            through = next(event.words for event in events if event.place == "all")
            assert f"with {through} in the background" in made.plain or made.plain.startswith(f"{through} in the")
    assert seen == set(PLANS)


def test_a_mixture_is_a_function_of_seed_and_item() -> None:
    sounds = [tone(words, 1.5) for words in HZ]
    one, again, other = (mixture(sounds, 4, RATE, 3, item) for item in (5, 5, 6))
    assert np.array_equal(one.audio, again.audio) and one.plain == again.plain
    assert one.structured != other.structured or not np.array_equal(one.audio, other.audio)


def test_what_can_not_be_mixed_is_refused() -> None:
    sound = tone("tone", 1)
    with pytest.raises(InputError, match="at least one"):
        mixture([], 3, RATE, 0, 0)
    with pytest.raises(InputError, match="as many channels"):
        mixture([sound, Sound(np.ones((2, 9), np.float32), "x")], 3, RATE, 0, 0)
    with pytest.raises(InputError, match="too short"):
        mixture([sound], 0.1, RATE, 0, 0)
    with pytest.raises(InputError, match="'x' is silent"):
        mixture([Sound(np.zeros((1, 9), np.float32), "x")], 3, RATE, 0, 0)
