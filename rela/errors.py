"""The root of all errors that `rela` raises on purpose.

Exit statuses follow sysexits.h: 2 usage, 65 bad data, 74 input/output, 75 try again, 77 refused as
unsafe.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from rela.pipeline.errors import STORAGE_ERRORS, PipelineError, storage_remedy

WARNING = "warning: "  # how messages about what may be wrong begin


class RelaError(Exception):
    """A failure with a message for users and an exit status for scripts.

    `instead`: the options to give instead, if known, from which the whole command is written.
    """

    exit_status = 70
    instead: Mapping[str, Any] = MappingProxyType({})


class ChoiceError(RelaError):
    """An option or name that does not exist or cannot be used; the message lists the alternatives."""

    exit_status = 2


class DataError(RelaError):
    """Images, weights or features that cannot be used."""

    exit_status = 65


class MisfitError(DataError):
    """Weights of another architecture; `instead` names the one that they fit."""


class UnavailableError(RelaError):
    """A file could not be read or fetched."""

    exit_status = 74


class PreemptedError(RelaError):
    """A batch system asked the job to stop; it has saved its state, and resumes when started again."""

    exit_status = 75


class LostRankError(RelaError):
    """Another process of the same training ended, was suspended, or cannot be reached."""

    exit_status = 75


class UnsafeError(RelaError):
    """A file that cannot be opened without running code from it."""

    exit_status = 77


def instead(error: RelaError, **options: Any) -> RelaError:
    """The error, whose message is to end with the command that has these options."""
    error.instead = options
    return error


def one_line(text: str) -> str:
    """Text from elsewhere for one line, with line breaks and control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def require(package: str, extra: str, use: str, error: type[RelaError] = ChoiceError) -> Any:
    """Import `package`; if it is missing, raise `error` with the command that installs it.

    `extra` is the extra of `rela` that contains it, `use` the purpose in words.
    """
    try:
        return import_module(package)
    except ImportError as missing:
        raise error(
            f"{missing.name or package} is needed for {use}; install it with `pip install 'rela[{extra}]'`"
        ) from missing


_STORAGE, _TRY_AGAIN = 74, 75


def failure_of(error: Exception) -> tuple[str, int] | None:
    """Message and exit status of an expected failure; None for any other."""
    if isinstance(error, RelaError | PipelineError):
        return str(error), error.exit_status
    if isinstance(error, OSError):
        if error.errno in STORAGE_ERRORS:
            what = f"cannot use {error.filename}: " if error.filename else ""
            return f"{what}{error.strerror}; {storage_remedy(error)}", _STORAGE
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; --debug shows the traceback", _STORAGE
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory; lower --batch-size or --image-size", _TRY_AGAIN
    return None
