"""Exit statuses and remedies of errors, against sysexits.h."""

import errno
import os

import pytest

from rela.pipeline.errors import (
    AlreadyPublishedError,
    BusyError,
    CorruptArtifactError,
    PipelineError,
    StorageError,
    storage_remedy,
)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (PipelineError, os.EX_SOFTWARE),
        (CorruptArtifactError, os.EX_DATAERR),
        (StorageError, os.EX_IOERR),
        (BusyError, os.EX_TEMPFAIL),
        (AlreadyPublishedError, os.EX_TEMPFAIL),
    ],
)
def test_exit_statuses_are_those_of_sysexits(kind: type[PipelineError], status: int) -> None:
    assert kind("no").exit_status == status


@pytest.mark.parametrize(
    ("numbers", "remedy"),
    [
        ((errno.ENOSPC, errno.EDQUOT), "free some space or choose another --output"),
        ((errno.EROFS, errno.EACCES, errno.EPERM), "choose a writable --output"),
        ((errno.EIO, errno.ESTALE), "check that file system, then run the same command again"),
    ],
)
def test_a_remedy_fits_its_error(numbers: tuple[int, ...], remedy: str) -> None:
    for number in numbers:
        assert storage_remedy(OSError(number, os.strerror(number)), "--output") == remedy
