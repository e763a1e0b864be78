"""How every kernel is compiled: without the interpreter lock, cached on disk, without fastmath."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first use. No fastmath: the same draw must round the same way on every machine."""
    return njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)(function)


@intrinsic
def as_pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An integer address as a pointer to bytes."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.uintp), generate


@compiled
def as_pixels(image):
    """The same memory as uint8 [n, 3].

    Unlike after a reshape, the compiler knows that pixels lie three bytes apart, and can vectorise.
    """
    flat = image.reshape(-1)
    return carray(as_pointer(np.uintp(flat.ctypes.data)), (flat.size // 3, 3))


@intrinsic
def copy_bytes(typing_context, source, start, count, out):  # type: ignore[no-untyped-def]
    """out[:count] = source[start : start + count], flat uint8; Numba's slices go byte by byte."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start, count, out = arguments
        source_data = context.make_array(signature.args[0])(context, builder, array).data
        out_data = context.make_array(signature.args[3])(context, builder, out).data
        cgutils.raw_memcpy(builder, out_data, builder.gep(source_data, [start]), count, 1)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, out), generate
