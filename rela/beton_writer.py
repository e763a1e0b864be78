"""Images → a beton: FFCV's file format and page allocator, written in order by one process.

A pool of processes reads, checks and encodes; this process alone lays the results into pages, in the
order of the list. So the bytes of a beton do not depend on the number of workers, nobody waits for a
page that a dead worker holds, and a worker that dies ends the writing with an error.
"""

import ctypes
import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rela.errors import DataError
from rela.image_file import BadImageError, read_image
from rela.image_folder import Sample

WriteMode = Literal["auto", "raw", "jpg", "proportion"]
MODE_JPEG, MODE_RAW = 0, 1
AUTO_RAW_PIXELS = 128 * 128  # `auto` keeps images up to this size as raw pixels, lossless
PAGE_BYTES = 1 << 23

_CHUNK_IMAGES = 32
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Encoding:
    """How images are stored.

    - `write_mode`: raw pixels, JPEG, a fixed share of JPEG (`proportion`), or by size (`auto`);
    - `jpeg_quality`: for images that have to be encoded; plain JPEG files that need no resize are
      stored as they are;
    - `max_side`: larger images are shrunk to this longer side, in pixels;
    - `jpeg_share`: the share of `proportion`.
    """

    write_mode: WriteMode = "auto"
    jpeg_quality: int = 90
    max_side: int | None = None
    jpeg_share: float = 0.5
    alpha_on_white: bool = False


@dataclass(frozen=True)
class StoredImage:
    """One encoded image, ready for a page."""

    data: bytes
    mode: int
    height: int
    width: int

    @property
    def sha256(self) -> str:
        """Digest of what a reader gets: mode, size and bytes."""
        head = f"{self.mode},{self.height},{self.width};".encode()
        return hashlib.sha256(head + self.data).hexdigest()


@dataclass
class WriteResult:
    """What went into a beton, by index, and what did not, by path."""

    samples: list[Sample] = field(default_factory=list)
    image_sha256: list[str] = field(default_factory=list)
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    num_jpeg: int = 0
    num_raw: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)


def encode_image(path: Path, encoding: Encoding, draw: float) -> StoredImage:
    """Read, check, shrink and encode one file; `draw` in [0, 1) decides `proportion`.

    Raises BadImageError with the reason.
    """
    from ffcv.fields.rgb_image import encode_jpeg, resizer

    source = read_image(path, encoding.alpha_on_white)
    pixels = resizer(source.pixels, encoding.max_side)
    height, width = pixels.shape[:2]
    mode = encoding.write_mode
    if mode == "auto":
        mode = "raw" if height * width <= AUTO_RAW_PIXELS else "jpg"
    elif mode == "proportion":
        mode = "jpg" if draw < encoding.jpeg_share else "raw"
    if mode == "raw":
        data = np.ascontiguousarray(pixels).tobytes()
    elif source.jpeg_bytes is not None and pixels is source.pixels and _decodes(source.jpeg_bytes, height, width):
        data = source.jpeg_bytes
    else:
        data = encode_jpeg(pixels, encoding.jpeg_quality).tobytes()
    if len(data) > PAGE_BYTES:
        raise BadImageError(
            f"too large: {width}×{height} pixels take {len(data):,} bytes stored as {mode}, a page "
            f"of the beton holds {PAGE_BYTES:,}; use --write-mode jpg or --max-side"
        )
    return StoredImage(data, MODE_RAW if mode == "raw" else MODE_JPEG, height, width)


def write_beton(
    destination: Path,
    root: Path,
    samples: Sequence[Sample],
    encoding: Encoding,
    num_workers: int,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda count: None,
) -> WriteResult:
    """Write `samples` (paths relative to `root`) to `destination`; returns what was written.

    Images that cannot be used are listed in `bad_images` and left out; the caller decides whether
    the file is kept. Rows keep the order of `samples`. Raises DataError if a worker dies.
    """
    result = WriteResult()
    with _BetonFile(destination, len(samples)) as beton:
        for sample, stored in _encoded(root, samples, encoding, num_workers, seed):
            if isinstance(stored, str):
                result.bad_images.append((sample.path, stored))
            else:
                beton.append(stored, sample.label)
                result.samples.append(sample)
                result.image_sha256.append(stored.sha256)
                result.num_jpeg += stored.mode == MODE_JPEG
                result.num_raw += stored.mode == MODE_RAW
                result.sizes.add((stored.height, stored.width))
            on_progress(1)
        if result.samples:
            beton.finish()
    return result


class _BetonFile:
    """The layout of a beton (format version 2): header, fields, metadata, pages, allocation table."""

    def __init__(self, path: Path, capacity: int) -> None:
        from ffcv.fields import IntField, RGBImageField
        from ffcv.memory_allocator import MemoryAllocator
        from ffcv.types import FieldDescType, HeaderType, get_metadata_type

        class CheckedAllocator(MemoryAllocator):  # type: ignore[misc]
            """Buffered, so that a short write on a full disk is an error and not a hole."""

            def __enter__(self) -> None:
                self.fp = open(self.fname, "r+b")  # noqa: SIM115

        self._path = path
        self._fields: dict[str, Any] = {
            "image": RGBImageField(), "label": IntField(), "index": IntField()
        }  # fmt: skip
        metadata_type = get_metadata_type(list(self._fields.values()))
        self._metadata: NDArray[Any] = np.zeros(capacity, metadata_type)
        self._metadata_start = HeaderType.itemsize + len(self._fields) * FieldDescType.itemsize
        self._num_samples = 0
        data_start = self._metadata_start + capacity * metadata_type.itemsize
        path.touch(exist_ok=False)
        self._allocator = CheckedAllocator(str(path), data_start, PAGE_BYTES)

    def __enter__(self) -> "_BetonFile":
        self._allocator.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._allocator.fp.close()

    def append(self, stored: StoredImage, label: int) -> None:
        """Put one sample into the current page; its index is its row."""
        row = self._num_samples
        self._allocator.set_current_sample(row)
        pointer, page = self._allocator.malloc(len(stored.data))
        page[:] = np.frombuffer(stored.data, np.uint8)
        image, label_field, index_field = (self._metadata[name] for name in self._metadata.dtype.names)
        image["mode"][row], image["data_ptr"][row] = stored.mode, pointer
        image["height"][row], image["width"][row] = stored.height, stored.width
        label_field[row] = label
        index_field[row] = row
        self._num_samples += 1

    def finish(self) -> None:
        """Flush the last page, then write metadata, table and, last of all, the header."""
        from ffcv.types import (
            ALLOC_TABLE_TYPE, CURRENT_VERSION, TYPE_ID_HANDLER, FieldDescType, HeaderType,
        )  # fmt: skip

        self._allocator.flush_page()
        file = self._allocator.fp
        file.seek(0, os.SEEK_END)
        header = np.zeros((), HeaderType)
        header["version"], header["num_fields"] = CURRENT_VERSION, len(self._fields)
        header["page_size"], header["num_samples"] = PAGE_BYTES, self._num_samples
        header["alloc_table_ptr"] = file.tell()
        file.write(np.array(self._allocator.allocations, ALLOC_TABLE_TYPE).tobytes())
        type_ids = {handler: type_id for type_id, handler in TYPE_ID_HANDLER.items()}
        descriptors = np.zeros(len(self._fields), FieldDescType)
        for descriptor, (name, handler) in zip(descriptors, self._fields.items(), strict=True):
            descriptor["type_id"] = type_ids[type(handler)]
            descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        file.seek(0)
        file.write(header.tobytes() + descriptors.tobytes())
        file.write(self._metadata[: self._num_samples].tobytes())
        file.flush()


def _encoded(
    root: Path, samples: Sequence[Sample], encoding: Encoding, num_workers: int, seed: int
) -> Iterator[tuple[Sample, StoredImage | str]]:
    """Every sample with its encoded image or the reason against it, in order."""
    chunks = iter(
        [samples[i : i + _CHUNK_IMAGES] for i in range(0, len(samples), _CHUNK_IMAGES)]
    )
    context = multiprocessing.get_context("spawn")
    parent = os.getpid()
    with ProcessPoolExecutor(num_workers, context, _die_with, (parent,)) as pool:

        def submit(chunk: Sequence[Sample]) -> tuple[Sequence[Sample], "Future[list[StoredImage | str]]"]:
            return chunk, pool.submit(_encode_chunk, root, chunk, encoding, seed)

        waiting = deque(submit(chunk) for chunk in islice(chunks, 4 * num_workers))
        try:
            while waiting:
                chunk, future = waiting.popleft()
                results = future.result()
                waiting.extend(submit(following) for following in islice(chunks, 1))
                yield from zip(chunk, results, strict=True)
        except BrokenProcessPool as error:
            raise DataError(
                f"a worker process died while reading images near {root / chunk[0].path} "
                "(out of memory, or killed); nothing was written. Try again with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _encode_chunk(
    root: Path, chunk: Sequence[Sample], encoding: Encoding, seed: int
) -> list[StoredImage | str]:
    results: list[StoredImage | str] = []
    for sample in chunk:
        digest = hashlib.sha256(f"{seed}\0{sample.path}".encode("utf-8", "surrogateescape")).digest()
        draw = int.from_bytes(digest[:6], "big") / (1 << 48)
        try:
            results.append(encode_image(root / sample.path, encoding, draw))
        except BadImageError as error:
            results.append(str(error))
    return results


def _decodes(jpeg: bytes, height: int, width: int) -> bool:
    """Whether FFCV's decoder, which will read the file later, accepts these bytes as they are."""
    from rela.kernels import decode

    out = np.empty(height * width * 3, np.uint8)
    data = np.frombuffer(jpeg, np.uint8)
    return bool(decode.decode(data, decode.MODE_JPEG, height, width, out) == decode.OK)


def _die_with(parent: int) -> None:
    """End this worker when its parent ends, however it ends; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
