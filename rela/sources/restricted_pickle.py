"""Pickles of plain data: numbers, text, bytes, lists, tuples, dicts and uint8 arrays. Nothing is imported.

Stand-ins take the place of the four functions of NumPy and Python that CIFAR's batches name. The
unpickler is the standard library's own in Python: the one in C allocates what a memo index or a length
claims, and offers no choice of opcodes.
"""

import functools
import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.errors import DataError, UnsafeError, one_line

_PLAIN = (
    "PROTO FRAME STOP MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE "
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS "
    "GLOBAL STACK_GLOBAL REDUCE BUILD"
)


def read_plain_pickle(content: bytes, name: str) -> Any:
    """The object in the pickle `content`; keys of the outermost dict are text; `name` is for messages.

    Text of Python 2 is read as Latin-1. Raises UnsafeError for a pickle that imports or builds anything
    else, DataError for a damaged one.
    """
    try:
        return _Unpickler(content).load()
    except UnsafeError as error:
        raise UnsafeError(f"{name} is a pickle that {error}; none of it was run") from error
    except Exception as error:  # a pickle can be wrong in any way
        what = str(error).strip() or type(error).__name__
        raise DataError(
            f"{name} is damaged, or not a pickle of images: {one_line(what)}"
        ) from error


class _StandIn:
    """Something imported. Without `__setstate__` BUILD would set attributes of the class."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"a state for {type(self).__name__}")


class _Dtype(_StandIn):
    """`numpy.dtype`, of uint8 only."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if kind not in ("u1", "|u1", "uint8"):
            raise ValueError("an array that is not of uint8")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which do not apply to uint8."""


class _Array(_StandIn):
    """`numpy.core.multiarray._reconstruct`: an array that BUILD fills."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """(version, shape, dtype, whether columns come first, bytes), as of `ndarray.__setstate__`."""
        _, shape, dtype, _, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | str):
            raise ValueError("an array that is not of uint8")
        if not all(type(side) is int for side in shape) or math.prod(shape) != len(data):
            raise ValueError("an array of another size than its bytes")
        self.state = state

    def values(self, encode: Callable[[str], bytes]) -> NDArray[np.uint8]:
        """A view of its bytes."""
        _, shape, _, columns_first, data = self.state
        flat = np.frombuffer(encode(data) if isinstance(data, str) else data, np.uint8)
        return flat.reshape(shape[::-1]).T if columns_first else flat.reshape(shape)


class _Dict(dict[Any, Any]):
    """Keys are text or bytes: the hash of a deeply nested tuple would overflow the C stack."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes):
            raise ValueError(f"a key that is a {type(key).__name__}")
        super().__setitem__(key, value)


class _Opcodes(dict[int, Any]):
    """Code of an opcode → the method that runs it; of plain data only, and at most so many times."""

    left = 1 << 20  # CIFAR-100's largest file has 200,000

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if not self.left:
            raise ValueError("more objects than a file of CIFAR has")
        if (method := self.get(code)) is not None:
            return method
        names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
        if code not in names:
            raise ValueError(f"unknown opcode {code}")
        raise UnsafeError(f"uses {names[code]}, more than plain data needs")


class _Unpickler(pickle._Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin-1")
        codes = [getattr(pickle, name)[0] for name in _PLAIN.split()]
        self.dispatch = _Opcodes({code: pickle._Unpickler.dispatch[code] for code in codes})  # type: ignore[misc]
        self.dispatch[pickle.DICT[0]] = _Unpickler.load_dict
        self.dispatch[pickle.EMPTY_DICT[0]] = lambda unpickler: unpickler.append(_Dict())
        # cached: text that occurs a thousand times must not become a thousand copies
        self._encode = functools.cache(lambda text: str.encode(text, "latin-1"))

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in; raises UnsafeError for every other name."""
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Array
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, _encoding: self._encode(text)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Dtype if name == "dtype" else _StandIn
        raise UnsafeError(
            f"would import {one_line(f'{module}.{name}')}, which plain images do not need"
        )

    def load_dict(self: Any) -> None:
        """DICT: the items since the mark."""
        items, made = self.pop_mark(), _Dict()
        for key, value in zip(items[::2], items[1::2], strict=True):
            made[key] = value
        self.append(made)

    def load(self) -> Any:
        """The object, with arrays in its outermost dict as NumPy's."""
        found = super().load()
        if not isinstance(found, dict):
            return found
        return {
            key.decode("latin-1") if isinstance(key, bytes) else key: value.values(self._encode)
            if isinstance(value, _Array)
            else value
            for key, value in found.items()
        }
