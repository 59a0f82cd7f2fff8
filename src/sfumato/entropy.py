"""Whole numbers as few bytes: an adaptive binary range coder, in integers only, so that every machine decodes alike.

A number is spelt as bits, each with a chance that is learnt as it goes, under a context: nothing about the numbers is
known beforehand and nothing is sent. A number is predicted from the one before in its line, as far as that has
helped so far, and what is coded is the difference: its size class in unary, the bits below its leading one, its sign.
Encoder and decoder share one model: `bit` puts in what it is given, or ignores it, and returns what it put in or read.

References
----------
.. [1] G. N. N. Martin, "Range encoding: an algorithm for removing redundancy from a digitised message", 1979.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from sfumato.errors import InputError

_TOP, _BOTTOM, _BYTE = 1 << 48, 1 << 40, 8
_LEAST = 32
"""Least chance of a bit, of 65536."""
_SLOWEST = 100
"""Bits after which a chance is no longer an average of all, but of the last ones."""
_FADE = 6
LARGEST = 1 << 24
"""Numbers are smaller than this in size."""
_MOST_BITS = 25


class Coder(Protocol):
    """Either end."""

    def bit(self, bit: int, one: int) -> int:
        """A bit that is 1 with chance `one` / 65536."""
        ...


class Encoder:
    """Bits in, bytes out."""

    def __init__(self) -> None:
        self._low, self._range, self._bytes = 0, _TOP, bytearray()

    def bit(self, bit: int, one: int) -> int:
        """Put in `bit`."""
        bound = (self._range >> 16) * one
        if bit:
            self._range = bound
        else:
            self._low += bound
            self._range -= bound
        while self._range < _BOTTOM:
            self._shift()
        return bit

    def finish(self) -> bytes:
        """All bytes, as few as tell the decoder enough: it reads zeros after the end."""
        last = self._low + self._range - 1
        for zeros in range(48, -1, -1):
            if last >> zeros << zeros >= self._low:
                self._low = last >> zeros << zeros
                break
        for _ in range(6):
            self._shift()
        return bytes(self._bytes).rstrip(b"\0")

    def _shift(self) -> None:
        if self._low >= _TOP:  # the carry runs up through full bytes
            at = len(self._bytes) - 1
            while self._bytes[at] == 255:
                self._bytes[at] = 0
                at -= 1
            self._bytes[at] += 1
            self._low -= _TOP
        self._bytes.append(self._low >> 40)
        self._low = (self._low & (_BOTTOM - 1)) << _BYTE
        self._range <<= _BYTE


class Decoder:
    """Bytes in, bits out."""

    def __init__(self, data: bytes) -> None:
        self._rest, self._range = iter(data), _TOP
        self._code = int.from_bytes(bytes(next(self._rest, 0) for _ in range(6)), "big")

    def bit(self, bit: int, one: int) -> int:
        """The next bit; what is given is ignored."""
        bound = (self._range >> 16) * one
        if self._code < bound:
            self._range, found = bound, 1
        else:
            self._code -= bound
            self._range -= bound
            found = 0
        while self._range < _BOTTOM:
            self._code = self._code << _BYTE | next(self._rest, 0)
            self._range <<= _BYTE
        return found


class Numbers:
    """What has been learnt of lines of numbers; goes through the same changes at either end."""

    def __init__(self) -> None:
        self._chances: dict[Hashable, list[int]] = {}
        self._lines: dict[int, tuple[int, int, int, int]] = {}

    def number(self, coder: Coder, line: int, value: int = 0) -> int:
        """The next number of a line, which the encoder is given: smaller than 2**24 in size."""
        before, product, power, last = self._lines.get(line, (0, 0, 0, 0))
        guess = (2 * before * product + power) // (2 * power) if power else 0
        rest = value - guess
        size, k = min(abs(rest).bit_length(), _MOST_BITS + 1), 0
        while self._bit(coder, (line, min(last, 6), k), int(size > k)):
            k += 1
            if k > _MOST_BITS + 1:
                raise InputError("The coded numbers are damaged.")
        found = min(k, 1)
        for place in range(k - 2, -1, -1):
            context = (line, "below", k, found) if place >= k - 3 else ("below", k, place)
            found = found << 1 | self._bit(coder, context, abs(rest) >> place & 1)
        if found and self._bit(coder, (line, "sign", (guess > 0) - (guess < 0)), int(rest < 0)):
            found = -found
        value = guess + found
        product += value * before - (product >> _FADE)
        power += before * before - (power >> _FADE)
        self._lines[line] = value, max(-power, min(power, product)), power, k
        return value

    def code(self, coder: Coder, line: int, n_bits: int, value: int = 0) -> int:
        """The next code of a line, `n_bits` bits whose order says nothing."""
        node = 1
        for place in range(n_bits - 1, -1, -1):
            node = node << 1 | self._bit(coder, (line, node), value >> place & 1)
        return node - (1 << n_bits)

    def _bit(self, coder: Coder, context: Hashable, bit: int) -> int:
        chance = self._chances.setdefault(context, [1 << 15, 0])
        bit = coder.bit(bit, chance[0])
        one, seen = chance
        one += ((1 << 16 if bit else 0) - one) // (seen + 2)
        chance[0] = max(_LEAST, min((1 << 16) - _LEAST, one))
        if seen < _SLOWEST:
            chance[1] = seen + 1
        return bit
