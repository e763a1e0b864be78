"""What every embedding has in common: a result that exists, or parts that are made, joined and published."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from rela.errors import DataError
from rela.pipeline.artifact import clear_abandoned
from rela.pipeline.errors import StorageError
from rela.pipeline.locks import mark_used
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.stages.embed.results import EmbedResult
from rela.stages.workspace.representations import Representations


class Wish(Protocol):
    """Representations, which may exist."""

    @property
    def names(self) -> Path:
        """The CSV of their images."""

    def find(self) -> Representations | None:
        """The artifact, if it exists."""


def existing(wish: Wish, parts: Path, start: Spent) -> EmbedResult | None:
    """The result if it exists; then `parts`, which a slower call may have left, are removed."""
    artifact = wish.find()
    if artifact is None:
        return None
    artifact.verify_quickly()
    mark_used(artifact.path)
    clear_abandoned(artifact.path)
    shutil.rmtree(parts, ignore_errors=True)
    return EmbedResult(artifact, wish.names, True, 0, (Spent.now() - start).seconds)


def in_parts(
    wish: Wish,
    store: PartStore,
    start: Spent,
    make: Callable[[ExitStack], tuple[int, Spent]],
    seal: Callable[[Spent], Representations],
) -> EmbedResult:
    """Make missing parts; the process that finds all of them joins them.

    `make` returns how many images were embedded, and what that took; its stack is closed after joining.
    `seal` publishes, given what this call took beside the parts, or takes the result of a faster process. The
    result has no artifact while other shards are missing.
    """
    with store.in_use(), ExitStack() as held:
        num_embedded, artifact = 0, None
        try:
            num_embedded, spent = make(held)
            if not store.missing():
                artifact = seal(Spent.now() - start - spent)
        except (DataError, StorageError, FileNotFoundError):  # a faster process removes the parts
            if wish.find() is None:
                raise
        artifact = artifact or wish.find()
    if artifact is not None:  # after its lock file is closed: NFS keeps open files
        shutil.rmtree(store.directory, ignore_errors=True)
    seconds = (Spent.now() - start).seconds
    return EmbedResult(artifact, wish.names, False, num_embedded, seconds)
