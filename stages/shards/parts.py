"""Shards in a store → a result in parts, one for each: at most two shards are here at a time.

A killed job repeats only the shards that it had not finished, and any number of processes, on machines that
share the workspace, take shards from one another.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rela.pipeline import Say
from rela.pipeline.artifact import staging
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.parts import PartStore, SharedParts
from rela.pipeline.spent import Spent
from rela.sources.remote import Shard, Shards
from rela.stages.display import progress_bar
from rela.stages.settings import ConvertSettings

T = TypeVar("T")
_Prepared = tuple[ExitStack, T]  # what a shard became, and what removes it


def listing_key(remote: Shards, settings: ConvertSettings) -> str:
    """Digest of names, sizes and versions of all shards, and of the settings."""
    shards = [[shard.name, shard.num_bytes, shard.version] for shard in remote.shards]
    given = {name: value and str(value) for name, value in asdict(settings).items()}
    return fingerprint({"root": remote.root, "shards": shards, "settings": given})


def fill(
    store: PartStore,
    remote: Shards,
    shards: list[Shard],
    share: tuple[int, int],
    prepare: Callable[[Shard, Path], T],
    compute: Callable[[Shard, T], tuple[bytearray, Spent]],
    say: Say,
) -> Spent:
    """Compute the missing parts of `share` (i, n), one for each shard; returns what that took.

    `prepare`: of a shard and its copy here, called in a thread; `compute`: of the shard and that, to the
    content of its part and what of it was taken from elsewhere. The next shard is copied and prepared while
    one is computed. Waits for parts that other processes compute. Ends early if another process has joined
    all parts and removed them.
    """
    todo, all_spent = store.missing(*share), Spent()
    mine = len(range(share[0], len(shards), share[1]))
    if len(todo) < mine:
        say(f"resuming after {mine - len(todo):,} of {mine:,} shards")

    def fetch(part: int) -> _Prepared[T]:
        with ExitStack() as stack:
            folder = stack.enter_context(staging(store.directory / f"shard-{part:06d}"))
            prepared = prepare(shards[part], remote.fetch(shards[part], folder))
            return stack.pop_all(), prepared

    def say_waiting(count: int) -> None:
        say(f"waiting for {count:,} shards that other processes work on")

    with (
        progress_bar(mine, "shards", "shard", initial=mine - len(todo)) as bar,
        SharedParts(store, todo, say_waiting) as shared,
        ThreadPoolExecutor(1) as pool,
    ):
        for claimed in shared.rounds():
            for part, (stack, prepared) in _one_ahead(claimed, fetch, pool):
                start = Spent.now()
                with stack:
                    content, known = compute(shards[part], prepared)
                spent = Spent.now() - start
                shared.write(part, content, spent + known)
                all_spent += spent
                bar.update()
    return all_spent


def _one_ahead(
    parts: Iterable[int],
    fetch: Callable[[int], _Prepared[T]],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, _Prepared[T]]]:
    """Each part with what `fetch` returns, which runs for the next one meanwhile."""
    waiting: deque[tuple[int, Future[_Prepared[T]]]] = deque()
    try:
        for part in parts:
            waiting.append((part, pool.submit(fetch, part)))
            if len(waiting) > 1:
                first, fetched = waiting.popleft()
                yield first, fetched.result()
        while waiting:
            first, fetched = waiting.popleft()
            yield first, fetched.result()
    finally:
        for _, fetched in waiting:
            if not fetched.cancel() and fetched.exception() is None:
                fetched.result()[0].close()
