"""Pickles of plain things, read as data: nothing in them is imported or called.

A pickle is a program for a small machine. This one can build numbers, text, bytes, lists, tuples, dicts
with text as keys, and NumPy arrays of uint8, which is all that CIFAR's batches are made of; it knows
NumPy's constructors by their names and has its own in their place.
"""

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.errors import DataError, UnsafeError, one_line

_ARRAY = frozenset(["numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"])
_BYTES = "_codecs encode"  # how Python 3 writes bytes for Python 2
_KNOWN = _ARRAY | {"numpy ndarray", "numpy dtype", _BYTES}
_IGNORED = frozenset(["PROTO", "FRAME", "STOP"])
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LITERALS = frozenset([
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8",
])  # fmt: skip
_DEEPEST = 20


@dataclass
class _Global:
    """Something that a pickle would import."""

    name: str


@dataclass
class _Array:
    """An array in the making, as NumPy's _reconstruct gives it."""

    values: NDArray[np.uint8] | None = None

    def set_state(self, state: Any) -> None:
        """(version, shape, dtype, whether columns come first, bytes), as ndarray.__setstate__."""
        _, shape, dtype, by_columns, data = state
        content = data.encode("latin-1") if isinstance(data, str) else data
        if dtype is not _UINT8 or not isinstance(content, bytes):
            raise ValueError("an array that is not of uint8")
        if not all(type(side) is int for side in shape) or math.prod(shape) != len(content):
            raise ValueError("an array of another size than its bytes")
        values = np.frombuffer(content, np.uint8)
        self.values = values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)


_UINT8 = _Global("uint8")


def read_plain_pickle(content: bytes, name: str) -> Any:
    """What the pickle `content` holds; `name` is for messages. Text of Python 2 is read as Latin-1.

    Raises UnsafeError if it would import anything else, DataError for what is damaged.
    """
    try:
        found = _Machine(name).run(content)
        return _with_arrays(found, 0)
    except (UnsafeError, DataError):
        raise
    except Exception as error:  # a pickle can be wrong in any way
        what = str(error).strip() or type(error).__name__
        raise DataError(f"{name} is damaged, or no pickle of images: {one_line(what)}") from error


class _Machine:
    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            self._step(opcode.name, argument)
        (found,) = self._stack
        return found

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _IGNORED:
            return
        if opcode == "MARK":
            self._marks.append(len(stack))
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _CONTAINERS:
            stack.append(_CONTAINERS[opcode]())
        elif opcode in _TUPLES:
            stack.append(tuple(stack.pop() for _ in range(_TUPLES[opcode]))[::-1])
        elif opcode in ("TUPLE", "LIST", "DICT"):
            items = self._from_mark()
            made: Any = tuple(items) if opcode == "TUPLE" else items
            stack.append(_put({}, items) if opcode == "DICT" else made)
        elif opcode in ("APPEND", "APPENDS"):
            items = [stack.pop()] if opcode == "APPEND" else self._from_mark()
            _of_type(stack[-1], list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if opcode == "SETITEM" else self._from_mark()
            _put(_of_type(stack[-1], dict), items)
        elif opcode == "GLOBAL":
            stack.append(self._known(argument))
        elif opcode == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._known(f"{_of_type(module, str)} {_of_type(attribute, str)}"))
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._made(function, arguments))
        elif opcode == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Array):
                stack[-1].set_state(state)
            elif stack[-1] is not _UINT8:
                raise ValueError("a state for something that has none")
        elif opcode in _LITERALS:
            stack.append(argument)
        else:
            raise UnsafeError(
                f"{self._name} is a pickle that wants {opcode}, more than plain data needs; "
                "nothing of it was run"
            )

    def _from_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _known(self, name: str) -> _Global:
        if name not in _KNOWN:
            raise UnsafeError(
                f"{self._name} is a pickle that would import {one_line(name).replace(' ', '.')}; plain "
                "images need nothing of the kind, and nothing of it was run"
            )
        return _Global(name)

    def _made(self, function: Any, arguments: Any) -> Any:
        name = _of_type(function, _Global).name
        if name in _ARRAY:
            return _Array()
        if name == "numpy dtype" and arguments[0] in ("u1", "|u1", "uint8"):
            return _UINT8
        if name == _BYTES and isinstance(arguments[0], str):
            return arguments[0].encode("latin-1")
        raise ValueError("something other than uint8 arrays")


def _of_type(found: Any, kind: type) -> Any:
    if not isinstance(found, kind):
        raise ValueError(f"expected a {kind.__name__}, found a {type(found).__name__}")
    return found


def _put(into: dict[str, Any], items: list[Any]) -> dict[str, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        text = key.decode("latin-1") if isinstance(key, bytes) else _of_type(key, str)
        into[text] = value
    return into


def _with_arrays(found: Any, depth: int) -> Any:
    """The same, arrays in the place of those in the making."""
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(found, _Array):
        if found.values is None:
            raise ValueError("an array without values")
        return found.values
    if isinstance(found, dict):
        return {key: _with_arrays(value, depth + 1) for key, value in found.items()}
    return found
