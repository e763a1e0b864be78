"""HDF5 files on a disk that is full (rela.representations.safe_hdf5): an error, no crash.

The limit on the size of files, RLIMIT_FSIZE, stands for the disk: it works for anybody, on any disk.
"""

from pathlib import Path

import pytest
from command_line import run_python

WRITE = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from rela.representations.matrix_file import write_matrix
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
parts = (np.full((1024, 64), i, np.float16) for i in range(8))
try:
    write_matrix(Path(sys.argv[1]), parts, (8 * 1024, 64), "float16", {"name": "x" * 3000})
except OSError as error:
    print(error.strerror)
"""
NUM_BYTES = 8 * 1024 * 64 * 2


@pytest.mark.parametrize("limit", [0, 100, 2048, 300_000, NUM_BYTES, NUM_BYTES + 4000])
def test_a_full_disk_is_an_error(tmp_path: Path, limit: int):
    job = run_python("-c", WRITE, tmp_path / "rows.h5", limit)
    assert (job.returncode, job.stdout, job.stderr) == (0, "File too large\n", "")
