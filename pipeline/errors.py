"""The root of all errors that `pipeline` raises on purpose.

Exit statuses follow sysexits.h: 65 bad data, 74 input/output, 75 try again, 77 not permitted.
"""

import errno

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class PipelineError(Exception):
    """A failure with a message for users and an exit status for scripts."""

    exit_status = 70


class CorruptArtifactError(PipelineError):
    """The content on disk differs from its manifest."""

    exit_status = 65


class StorageError(PipelineError):
    """Reading or writing failed: a full disk, a missing permission, a dead network share."""

    exit_status = 74


class BusyError(PipelineError):
    """Another process is working on the same thing."""

    exit_status = 75


class AlreadyPublishedError(PipelineError):
    """A complete artifact already exists at the destination; it is never overwritten."""

    exit_status = 75


def storage_remedy(error: OSError, option: str = "--workspace") -> str:
    """What to do after a failure to write to the place that `option` names."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space or choose another {option}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"choose a writable {option}"
    return "check that file system, then run the same command again"
