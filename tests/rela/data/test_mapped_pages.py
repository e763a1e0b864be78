"""Reading memory-mapped files in blocks (rela.data.memory), the resident set as the kernel counts it.

- every row comes once, in order, from maps and from plain arrays;
- what was read leaves the resident set and can be read again; without it, it would have stayed;
- a map that keeps its changes in memory only keeps them.
"""

from pathlib import Path

import numpy as np
import pytest

from rela.data.memory import blocks, release_pages

NUM_BYTES = 64 << 20


def resident_file_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("RssFile"))
    return int(kib) << 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rows"
    np.random.default_rng(0).integers(0, 256, NUM_BYTES, np.uint8).tofile(found)
    return found


def test_every_row_comes_once(path: Path):
    mapped = np.memmap(path, np.uint8, "r").reshape(-1, 1024)[:1000]
    for values in (mapped, np.array(mapped)):
        found = list(blocks(values, 300))
        assert [start for start, _ in found] == [0, 300, 600, 900]
        assert np.array_equal(np.concatenate([rows for _, rows in found]), mapped)


def test_read_pages_leave_the_resident_set(path: Path):
    values = np.memmap(path, np.uint8, "r", shape=(NUM_BYTES // 1024, 1024))
    before = resident_file_bytes()
    total = int(values.sum(dtype=np.int64))
    assert resident_file_bytes() - before > 0.9 * NUM_BYTES  # or there were nothing to see here
    release_pages(values)
    assert resident_file_bytes() - before < 0.1 * NUM_BYTES
    again, most = 0, 0
    for _, rows in blocks(values, 4096):
        again += int(rows.sum(dtype=np.int64))
        most = max(most, resident_file_bytes() - before)
    assert again == total
    assert most < 0.2 * NUM_BYTES


def test_copy_on_write_changes_stay(path: Path):
    values = np.memmap(path, np.uint8, "c")
    values[:10] = range(10)
    release_pages(values)
    assert values[:10].tolist() == list(range(10))
