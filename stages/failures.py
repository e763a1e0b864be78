"""Exceptions → what a person is told and a script gets: one line and an exit status."""

from pipeline.errors import STORAGE_ERRORS, PipelineError, storage_remedy
from rela.errors import RelaError

_STORAGE, _TRY_AGAIN = 74, 75


def failure_of(error: Exception) -> tuple[str, int] | None:
    """Message and exit status of a failure that can be explained; None for one that cannot."""
    if isinstance(error, RelaError | PipelineError):
        return str(error), error.exit_status
    if isinstance(error, OSError):
        if error.errno in STORAGE_ERRORS:
            what = f"cannot use {error.filename}: " if error.filename else ""
            return f"{what}{error.strerror}; {storage_remedy(error)}", _STORAGE
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; --debug shows where this came from", _STORAGE
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory; lower --batch-size or --image-size", _TRY_AGAIN
    return None
