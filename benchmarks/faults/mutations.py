"""Bytes and JSON as they should not be."""

import json
import random
from collections.abc import Iterator
from typing import Any

_ODD_VALUES = (
    None, True, -1, 0, 7, 1 << 62, 10**30, 1e308, float("inf"), float("nan"), "", "x", "\0", "none",
    "../../../../etc/passwd", "/etc/passwd", "train", [], [[]], ["x"], [1, 2], {}, {"a": 1}, {"name": "x"},
)  # fmt: skip


def mutated(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Other bytes in place of these, with what was done to them: flipped, cut, replaced, all random."""
    chance = random.Random(seed)
    for number in range(count):
        changed = bytearray(content)
        kind = ("flipped", "cut", "replaced", "random", "moved")[number % 5]
        at = chance.randrange(max(1, len(content)))
        if kind == "flipped":
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del changed[at:]
        elif kind == "replaced":
            end = min(len(content), at + chance.randint(1, 32))
            changed[at:end] = chance.choice(
                (bytes(end - at), b"\xff" * (end - at), chance.randbytes(end - at))
            )
        elif kind == "moved":
            changed[at:at] = chance.randbytes(chance.randint(1, 16))
        else:
            changed = bytearray(content[: chance.choice((0, 8, 16))] + chance.randbytes(at))
        yield f"{kind} at {at} of {len(content)} (seed {seed}, {number})", bytes(changed)


def odd_json(document: Any, count: int, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """The same document with one entry of another type or value, removed or added."""
    chance = random.Random(seed)
    places = list(_places(document))
    for _ in range(count):
        changed = json.loads(json.dumps(document))
        *path, last = chance.choice(places)
        holder = changed
        for step in path:
            holder = holder[step]
        value = chance.choice(_ODD_VALUES)
        what = f"{'.'.join(map(str, (*path, last)))} = {value!r}"
        if chance.random() < 0.2:
            del holder[last]
            what = f"without {'.'.join(map(str, (*path, last)))}"
        else:
            holder[last] = value
        yield what, changed


def deep_json(depth: int = 100_000) -> bytes:
    """Lists within lists."""
    return b"[" * depth + b"]" * depth


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from _places(inner, (*path, key))
