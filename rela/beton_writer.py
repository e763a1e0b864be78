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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela import ffcv_bridge
from rela.encoding import MODE_JPEG, MODE_RAW, PAGE_BYTES, Encoding, StoredImage, encode_image
from rela.errors import DataError
from rela.image_file import BadImageError
from rela.image_folder import Sample

_CHUNK_IMAGES = 32
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Outcome:
    """What became of one file: its digest, and the stored image or the reason against it."""

    source_sha256: str
    stored: StoredImage | None
    reason: str = ""


@dataclass
class WriteResult:
    """What went into a beton, by index, and what did not, by path."""

    samples: list[Sample] = field(default_factory=list)
    source_sha256: list[str] = field(default_factory=list)
    image_sha256: list[str] = field(default_factory=list)
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    num_jpeg: int = 0
    num_raw: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # by (height, width)


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
        for sample, outcome in _encoded(root, samples, encoding, num_workers, seed):
            stored = outcome.stored
            if stored is None:
                result.bad_images.append((sample.path, outcome.reason))
            else:
                beton.append(stored, sample.label)
                result.samples.append(sample)
                result.source_sha256.append(outcome.source_sha256)
                result.image_sha256.append(stored.sha256)
                result.num_jpeg += stored.mode == MODE_JPEG
                result.num_raw += stored.mode == MODE_RAW
                result.sizes[stored.height, stored.width] += 1
            on_progress(1)
        if result.samples:
            beton.finish()
    return result


class _BetonFile:
    """The layout of a beton (format version 2): header, fields, metadata, pages, allocation table."""

    def __init__(self, path: Path, capacity: int) -> None:
        ffcv = ffcv_bridge.load()

        class CheckedAllocator(ffcv.allocator):  # type: ignore[misc, name-defined]
            """Buffered, so that a short write on a full disk is an error and not a hole."""

            def __enter__(self) -> None:
                self.fp = open(self.fname, "r+b")

        self._path = path
        self._fields: dict[str, Any] = {
            "image": ffcv.image_field(),
            "label": ffcv.int_field(),
            "index": ffcv.int_field(),
        }
        metadata_type = ffcv.metadata_type(list(self._fields.values()))
        self._metadata: NDArray[Any] = np.zeros(capacity, metadata_type)
        self._num_samples = 0
        head_bytes = ffcv.header_type.itemsize + len(self._fields) * ffcv.field_type.itemsize
        data_start = head_bytes + capacity * metadata_type.itemsize
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
        image, label_field, index_field = (
            self._metadata[name] for name in self._metadata.dtype.names or ()
        )
        image["mode"][row], image["data_ptr"][row] = stored.mode, pointer
        image["height"][row], image["width"][row] = stored.height, stored.width
        label_field[row] = label
        index_field[row] = row
        self._num_samples += 1

    def finish(self) -> None:
        """Flush the last page, then write metadata, table and, last of all, the header."""
        ffcv = ffcv_bridge.load()
        self._allocator.flush_page()
        file = self._allocator.fp
        file.seek(0, os.SEEK_END)
        header = np.zeros((), ffcv.header_type)
        header["version"], header["num_fields"] = ffcv.version, len(self._fields)
        header["page_size"], header["num_samples"] = PAGE_BYTES, self._num_samples
        header["alloc_table_ptr"] = file.tell()
        file.write(np.array(self._allocator.allocations, ffcv.allocation_type).tobytes())
        type_ids = {handler: type_id for type_id, handler in ffcv.type_id_handler.items()}
        descriptors = np.zeros(len(self._fields), ffcv.field_type)
        for descriptor, (name, handler) in zip(descriptors, self._fields.items(), strict=True):
            descriptor["type_id"] = type_ids[type(handler)]
            descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        file.seek(0)
        file.write(header.tobytes() + descriptors.tobytes())
        file.write(self._metadata[: self._num_samples].tobytes())
        file.flush()


def _encoded(
    root: Path, samples: Sequence[Sample], encoding: Encoding, num_workers: int, seed: int
) -> Iterator[tuple[Sample, _Outcome]]:
    """Every sample with what became of it, in order."""
    chunks = iter([samples[i : i + _CHUNK_IMAGES] for i in range(0, len(samples), _CHUNK_IMAGES)])
    context = multiprocessing.get_context("spawn")
    parent = os.getpid()
    with ProcessPoolExecutor(num_workers, context, _die_with, (parent,)) as pool:

        def submit(chunk: Sequence[Sample]) -> tuple[Sequence[Sample], "Future[list[_Outcome]]"]:
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
) -> list[_Outcome]:
    return [_encode_file(root / s.path, encoding, _draw(seed, s.path)) for s in chunk]


def _encode_file(path: Path, encoding: Encoding, draw: float) -> _Outcome:
    try:
        content = path.read_bytes()
    except OSError as error:
        return _Outcome("", None, f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    try:
        return _Outcome(digest, encode_image(content, encoding, draw))
    except BadImageError as error:
        return _Outcome(digest, None, str(error))


def _draw(seed: int, path: str) -> float:
    """Uniform in [0, 1), a function of seed and path alone."""
    digest = hashlib.sha256(f"{seed}\0{path}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _die_with(parent: int) -> None:
    """End this worker when its parent ends, however it ends; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
