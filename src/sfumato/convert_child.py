"""The reader process: takes the weights out of one pickled checkpoint, sealed off from everything else.

It is run by path, imports nothing of this package, and gets its files as descriptors in one JSON argument. Before the
checkpoint is looked at, the kernel is told to refuse this process (seccomp) any network, any other program, process or
thread, signals to others, opening a file to write, and making, renaming and removing names of files; and memory, time
and output are limited. Only then does torch's own reader for plain data (``weights_only``) take the file apart; it
never imports what a file names. Training configurations that were pickled along (omegaconf) are replaced by stand-ins
that keep nothing. Writes safetensors, float32, and one JSON line.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pickle
import platform
import re
import resource
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save

# The kernel's numbers of what is refused: network, other programs, other processes, names of files; then of the
# calls that open files, which are refused for writing. The number of the architecture is the kernel's, too.
SEALED = {
    "x86_64": (
        0xC000003E,
        (41, 42, 43, 44, 46, 49, 50, 53, 56, 57, 58, 59, 62, 76, 82, 83, 84, 85, 86, 87, 88, 90, 92, 101, 133, 165,
         258, 259, 260, 263, 264, 265, 266, 268, 288, 304, 310, 311, 316, 321, 322, 425, 435, 437, 438),
        ((2, 1), (257, 2)),
    ),
    "aarch64": (
        0xC00000B7,
        (33, 34, 35, 36, 37, 38, 40, 45, 53, 54, 117, 129, 198, 199, 200, 201, 202, 203, 206, 211, 220, 221, 242, 265,
         270, 271, 276, 280, 281, 425, 435, 437, 438),
        ((56, 2),),
    ),
}  # fmt: skip
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
X32 = 0x40000000

INERT = {
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata", "SCMode"),
    "omegaconf.nodes": (
        "AnyNode", "BooleanNode", "BytesNode", "EnumNode", "FloatNode", "IntegerNode", "InterpolationResultNode",
        "PathNode", "StringNode", "UnionNode",
    ),
    "typing": ("Any",),
    "builtins": ("bool", "dict", "float", "int", "list", "str", "tuple"),
    "collections": ("defaultdict",),
}  # fmt: skip
"""What a pickled training configuration names, by module."""


class Refused(Exception):
    """The file isn't what it should be; the message ends a sentence."""


class _Inert:
    """Stands for an object of a library that isn't needed, and keeps nothing of it."""

    def __new__(cls, *given: object) -> _Inert:
        """Forget what was given."""
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


def main() -> int:
    """Read, choose, write; 0 if all went well or the file was refused with a reason."""
    order = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.serialization.add_safe_globals(list(_stand_ins()))
    _limit(order["memory_bytes"], order["seconds"], order["max_bytes"])
    _seal()
    try:
        try:
            checkpoint = torch.load(f"/dev/fd/{order['source']}", map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError) as error:
            raise Refused(_reason(error)) from None
        part, weights = _weights_of(checkpoint, order["parts"], order["max_bytes"])
        with os.fdopen(order["target"], "wb") as target:
            target.write(save(weights))
        answer = {"part": part, "weights": sum(value.numel() for value in weights.values())}
    except Refused as refusal:
        answer = {"refused": str(refusal)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


def _stand_ins() -> Iterator[type]:
    for module, names in INERT.items():
        for name in names:
            yield type(name, (_Inert,), {"__module__": module, "__qualname__": name})


def _limit(memory_bytes: int, seconds: int, max_bytes: int) -> None:
    """Limit what may be used on top of what importing the libraries took."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 (a process file, read once)
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes + (1 << 20), max_bytes + (1 << 20)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _seal() -> None:
    """Give up network, programs and writing to new files for good; a system where that can't be is an error."""
    architecture, refused, openers = SEALED[platform.machine()]
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, REFUSE)]
    for number in refused:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    for number, place in openers:
        steps += [(EQUAL, 0, 4, number), (LOAD, 0, 0, 16 + 8 * place), (ANY_BIT, 0, 1, writing)]
        steps += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value, pointer in (
        (PR_SET_NO_NEW_PRIVS, 1, None),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise OSError(ctypes.get_errno(), "the kernel refuses to seal this process off")


def _reason(error: BaseException) -> str:
    """Why torch's reader gave up."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"it holds more than plain data: it names {named[1]}, which would have to be run to be read"
    return "it is damaged or no checkpoint that torch.save wrote"


def _weights_of(checkpoint: object, parts: list[str], max_bytes: int) -> tuple[str, dict[str, torch.Tensor]]:
    """The first of `parts` that holds weights, or the whole if it is nothing else, as float32."""
    if not isinstance(checkpoint, Mapping):
        raise Refused("it holds no dictionary")
    entries: list[tuple[str, Any]] = [(part, checkpoint.get(part)) for part in parts]
    for part, entry in [*entries, ("", checkpoint)]:
        if isinstance(entry, Mapping) and entry and all(map(_is_weight, entry, entry.values())):
            if sum(4 * value.numel() for value in entry.values()) > max_bytes:
                raise Refused(f"its weights unfold to more than {max_bytes} bytes")
            # Clones: entries may share memory, which safetensors would refuse.
            return part, {key: value.detach().float().clone().contiguous() for key, value in entry.items()}
    raise Refused(f"it holds no weights under {', '.join(parts)}")


def _is_weight(key: object, value: object) -> bool:
    if not isinstance(key, str) or not isinstance(value, torch.Tensor):
        return False
    return value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu"


if __name__ == "__main__":
    sys.exit(main())
