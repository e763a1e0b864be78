"""Images → a beton, FFCV's file format, written in order by one process.

A pool of processes reads, checks and encodes; only this process writes the results to pages, in the
order of the list. So the bytes of a beton do not depend on the number of workers, and a worker that
dies ends the writing with an error instead of holding a page forever.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.data.beton.encoded import Encoded, Outcome
from rela.data.beton.encoding import Encoding, StoredImage, encode_image
from rela.data.beton.tally import Tally
from rela.data.beton.worker_pool import WorkerDiedError, WorkerPool
from rela.data.ffcv_format import (
    ALLOCATION,
    FIELD_TYPE_IDS,
    HEADER,
    METADATA,
    MODE_JPEG,
    MODE_RAW,
    PAGE_BYTES,
    VERSION,
    field_descriptors,
    first_page,
    page_bytes_for,
)
from rela.data.memory import keep_freed_memory
from rela.errors import DataError, one_line
from rela.sources.image_file import BadImageError
from rela.sources.source import Sample, content_sha256

_CHUNK_IMAGES = 32


@dataclass
class WriteResult:
    """The images in a beton, by row, and the unusable ones as (path, reason)."""

    samples: list[Sample] = field(default_factory=list)
    source_sha256: list[str] = field(default_factory=list)
    image_sha256: list[str] = field(default_factory=list)
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    bad_image_sha256: list[str] = field(default_factory=list)
    num_jpeg: int = 0
    num_raw: int = 0
    tally: Tally = field(default_factory=Tally)


def write_beton(
    destination: Path,
    root: Path,
    samples: Sequence[Sample],
    encoding: Encoding,
    num_workers: int | WorkerPool,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda count: None,
) -> WriteResult:
    """Write `samples` (files relative to `root`) to `destination`, in their order.

    `num_workers`: of processes for this file, or a pool of them for several files.

    Unusable images are left out and listed in `bad_images`; the caller decides whether to keep the
    file. `on_progress` is called with the number of images done since the last call. Raises DataError
    if a worker dies.
    """
    result = WriteResult()
    with _BetonFile(destination, len(samples)) as beton:
        for sample, outcome in encode_all(root, samples, encoding, num_workers, seed):
            stored = outcome.stored
            if stored is None:
                result.bad_images.append((sample.path, outcome.reason))
                result.bad_image_sha256.append(outcome.source_sha256)
            else:
                beton.append(stored, sample.label)
                result.samples.append(sample)
                result.source_sha256.append(outcome.source_sha256)
                result.image_sha256.append(stored.sha256)
                result.num_jpeg += stored.mode == MODE_JPEG
                result.num_raw += stored.mode == MODE_RAW
                result.tally.add(sample.path, stored)
            on_progress(1)
        if result.samples:
            beton.finish()
    return result


class _BetonFile:
    """A beton being written: each page once it is full, headers and tables at the end.

    Pages are of PAGE_BYTES, or smaller if one of them would hold everything.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        self._metadata: NDArray[Any] = np.zeros(capacity, METADATA)
        self._allocations: NDArray[Any] = np.zeros(capacity, ALLOCATION)
        self._num_samples = 0
        self._page_bytes = PAGE_BYTES
        self._first_page = self._page_start = first_page(capacity)
        self._page = bytearray()
        self._file = open(path, "xb")  # noqa: SIM115

    def __enter__(self) -> "_BetonFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, stored: StoredImage, label: int) -> None:
        """Add one sample to the current page, or to the next if it does not fit."""
        row = self._num_samples
        pointer = self._place(stored.data)
        image = (stored.mode, stored.width, stored.height, pointer)
        self._metadata[row] = (image, label, row)
        self._allocations[row] = (row, pointer, len(stored.data))
        self._num_samples += 1

    def _place(self, data: bytes | bytearray) -> int:
        """Where in the file it will be: in the current page, or in the next if it does not fit."""
        if len(self._page) + len(data) > self._page_bytes:
            self._flush_page()
        self._page += data
        return self._page_start + len(self._page) - len(data)

    def _use_smaller_pages(self) -> None:
        """Lay out anew what fits in one page, of which most may be empty; so may be that of the metadata."""
        if self._page_start != self._first_page:
            return
        allocations, packed = self._allocations[: self._num_samples], bytes(self._page)
        self._page_bytes = page_bytes_for(int(allocations["size"].max()))
        self._page_start = first_page(self._num_samples, self._page_bytes)
        self._page.clear()
        starts = allocations["ptr"].astype(np.int64) - self._first_page
        for row, (start, size) in enumerate(zip(starts, allocations["size"], strict=True)):
            allocations["ptr"][row] = self._place(packed[start : start + int(size)])
        self._metadata["image"]["data_ptr"][: self._num_samples] = allocations["ptr"]

    def finish(self) -> None:
        """Write the last page, the allocation table, then the header and metadata."""
        self._use_smaller_pages()
        self._flush_page()
        header = np.zeros((), HEADER)
        header["version"], header["num_fields"] = VERSION, len(FIELD_TYPE_IDS)
        header["page_size"], header["num_samples"] = self._page_bytes, self._num_samples
        header["alloc_table_ptr"] = self._page_start
        self._file.seek(self._page_start)
        self._file.write(self._allocations[: self._num_samples].tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes() + field_descriptors().tobytes())
        self._file.write(self._metadata[: self._num_samples].tobytes())
        self._file.flush()

    def _flush_page(self) -> None:
        self._file.seek(self._page_start)
        self._file.write(self._page.ljust(self._page_bytes, b"\0"))
        self._page_start += self._page_bytes
        self._page.clear()


def encode_all(
    root: Path,
    samples: Sequence[Sample],
    encoding: Encoding,
    num_workers: int | WorkerPool,
    seed: int,
) -> Iterator[tuple[Sample, Outcome]]:
    """Every sample with its outcome, in order; raises DataError if a worker dies."""
    if samples and isinstance(samples[0].place, Encoded):  # all are, and nothing is to be computed
        yield from ((s, s.place.outcome()) for s in samples if isinstance(s.place, Encoded))
        return
    chunks = [samples[i : i + _CHUNK_IMAGES] for i in range(0, len(samples), _CHUNK_IMAGES)]
    encode = functools.partial(_encode_chunk, root, encoding, seed)
    done = 0
    try:
        with ExitStack() as stack:
            pool = num_workers
            if not isinstance(pool, WorkerPool):
                pool = stack.enter_context(WorkerPool(pool))
            for chunk, outcomes in zip(chunks, pool.map(encode, chunks), strict=True):
                yield from zip(chunk, outcomes, strict=True)
                done += len(chunk)
    except WorkerDiedError as error:
        near = one_line(str(root / samples[done].path))
        raise DataError(
            f"a worker process died while reading images near {near} (out of memory, or killed); "
            "nothing was written. Try again with fewer --workers"
        ) from error


def _encode_chunk(
    root: Path, encoding: Encoding, seed: int, chunk: Sequence[Sample]
) -> list[Outcome]:
    keep_freed_memory()  # otherwise the allocator returns the memory of every decoded image
    return [_encode_sample(root, sample, encoding, _draw(seed, sample.path)) for sample in chunk]


def _encode_sample(root: Path, sample: Sample, encoding: Encoding, draw: float) -> Outcome:
    try:
        content = sample.read(root)
    except BadImageError as error:
        return Outcome("", None, str(error))
    digest = content_sha256(content)
    try:
        return Outcome(digest, encode_image(content, encoding, draw))
    except BadImageError as error:
        return Outcome(digest, None, str(error))


def _draw(seed: int, path: str) -> float:
    """Uniform in [0, 1), a function of seed and path only."""
    digest = hashlib.sha256(f"{seed}\0{path}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
