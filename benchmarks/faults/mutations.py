"""Bytes and JSON as they should not be."""

import json
import random
from collections.abc import Iterator
from typing import Any

_ODD_VALUES = (
    None, True, -1, 0, 7, 1 << 62, 10**30, 1e308, float("inf"), float("nan"), "", "x", "\0", "none",
    "../../../../etc/passwd", "/etc/passwd", "train", [], [[]], ["x"], [1, 2], {}, {"a": 1}, {"name": "x"},
)  # fmt: skip

KINDS = ("flipped", "cut", "replaced", "random", "moved")
_END, _MOST_RANDOM = 4096, 1 << 20


def mutated(content: bytes, number: int) -> bytes:
    """Other bytes in place of these, always the same ones of a number: see KINDS."""
    chance = random.Random(number)
    kind, changed = KINDS[number % len(KINDS)], bytearray(content)
    at = _place(chance, len(content))
    if kind == "flipped":
        for _ in range(chance.randint(1, 4)):
            changed[_place(chance, len(content))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "replaced":
        count = min(len(content) - at, chance.randint(1, 32))
        changed[at : at + count] = chance.choice(
            (bytes(count), b"\xff" * count, chance.randbytes(count))
        )
    elif kind == "moved":
        changed[at:at] = chance.randbytes(chance.randint(1, 16))
    else:
        changed = changed[: chance.choice((0, 8, 16))] + chance.randbytes(min(at, _MOST_RANDOM))
    return bytes(changed)


def _place(chance: random.Random, length: int) -> int:
    """Anywhere, but mostly near the ends, where files say what is in them."""
    low, high = chance.choice(((0, length), (0, _END), (length - _END, length)))
    return chance.randrange(max(0, low), max(1, min(high, length)))


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
    listed = value if isinstance(value, list) else ()
    items = value.items() if isinstance(value, dict) else enumerate(listed)
    for key, inner in items:
        yield from _places(inner, (*path, key))
