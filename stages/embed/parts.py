"""The missing parts of representations: rows that exist, and rows from forward passes."""

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rela.pipeline import Say
from rela.pipeline.lease import Leases
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.stages.display import progress_bar
from rela.stages.embed.arithmetic import Arithmetic, arithmetic_here, record_arithmetic
from rela.stages.embed.engine import (
    asked_engine,
    begun_with,
    continue_with,
    settle_engine,
)
from rela.stages.embed.rounding import Rounding
from rela.stages.embed.wanted import Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rela.data.beton.reader import Beton
    from rela.representations.embedder import Embedder
    from rela.stages.embed.reuse import Crops, KnownRows

_POLL_SECONDS = 0.5
_CHECKED_ON = ("cuda",)


@dataclass(frozen=True)
class Filled:
    """Representations whose parts are made now, and where those are kept."""

    wanted: Wanted
    store: PartStore


def embed_parts(filled: Sequence[Filled], todo: list[int], say: Say) -> tuple[int, Spent]:
    """Make the parts `todo` of the first, and the same parts of the others in the same forward passes.

    Others that need more images are left for later. Returns the number of images that were embedded, and
    what the parts cost here. Waits for parts that other processes make. A row does not depend on other rows,
    so the bytes of a part do not depend on who makes which, nor on what is taken from elsewhere.
    """
    import numpy as np

    from rela.data.crops import CropPlan
    from rela.representations.matrix_file import part_rows

    if not todo:
        return 0, Spent()
    wanted, store = filled[0].wanted, filled[0].store
    split, settings = wanted.split, wanted.settings
    beton = wanted.dataset.open(split)
    crops = CropPlan(settings.crops).draw(beton) if settings.crops else None
    rows_todo = np.concatenate([part_rows(part, len(beton)) for part in todo])
    count, all_spent, has_waited = 0, Spent(), False
    with ExitStack() as stack:
        sources = _Sources(filled, beton, crops, rows_todo, say, stack)
        num_todo = len(sources.known[0].to_embed(rows_todo))
        bar = stack.enter_context(
            progress_bar(len(beton), f"embed {split}", "img", initial=len(beton) - num_todo)
        )
        leases = stack.enter_context(Leases(store.directory))
        while todo and store.directory.is_dir():  # the process that joins the parts removes them
            made, claimed = set(), deque[int]()

            def begin(todo: list[int], claimed: deque[int]) -> "Iterator[NDArray[np.int64]]":
                for part in store.claim(todo, leases):
                    claimed.append(part)
                    yield part_rows(part, len(beton))

            part_start = Spent.now()
            for num_embedded, parts in sources.parts(begin(todo, claimed), bar.update):
                part, spent = claimed.popleft(), Spent.now() - part_start
                each_spent = spent / len(parts)
                for each, (content, known_spent) in zip(sources.filled[1:], parts[1:], strict=True):
                    if each.store.read(part) is None:
                        each.store.write(part, content, each_spent + known_spent)
                content, known_spent = parts[0]
                store.write(part, content, each_spent + known_spent, leases)
                made.add(part)
                count += num_embedded
                all_spent += spent
                part_start = Spent.now()
            todo = [part for part in todo if part not in made and store.read(part) is None]
            if todo and not made:
                if not has_waited:
                    say(f"waiting for {len(todo)} parts that other processes work on")
                has_waited = True
                time.sleep(_POLL_SECONDS)
    return count, all_spent


class _Sources:
    """Where the rows of the first of `filled` come from, and of those others that need no more images."""

    def __init__(
        self,
        filled: Sequence[Filled],
        beton: "Beton",
        crops: "Crops",
        rows: "NDArray[np.int64]",
        say: Say,
        stack: ExitStack,
    ) -> None:
        """Find rows that exist, and load the prior if others are missing; `stack` protects what is used."""
        from rela.representations.embedder import choose_device

        wanted, stores = filled[0].wanted, [each.store for each in filled]
        self._beton, self._crops, self._settings = beton, crops, wanted.settings
        self._device = choose_device(wanted.settings.device)
        here = self._arithmetic()
        if (engine := begun_with(stores[0])) is not None:
            here = replace(here, engine=engine.name)
            if self._device.type == "cpu":
                here = replace(here, number_format=engine.precision)
        self.filled, self.known = [filled[0]], [self._known(filled[0], here, say, stack)]
        first = self.known[0]
        if first.donors and not continue_with(stores[0], first.donors[0]):
            first.forget()  # another process has just begun, with another engine
        missing, taken = first.to_embed(rows), first.arithmetic
        self._embedder: Embedder | None = None
        if len(missing):
            for each in filled[1:]:
                known = self._known(each, taken or here, lambda line: None, stack)
                if set(known.to_embed(rows).tolist()) <= set(missing.tolist()):
                    self.filled.append(each)
                    self.known.append(known)
            widths = [each.wanted.prior.identity.feature_dim for each in self.filled]
            self._ends = list(itertools.accumulate(widths))[:-1]  # of the columns of each
            self._embedder = self._loaded(say)
            here = self._arithmetic(self._embedder)
            if any(self._is_not_as_here(known, here, say) for known in self.known):
                for known in self.known:
                    known.forget()
        elif taken is not None:
            here = replace(taken, asked=here.asked)
        if words := first.words():
            say(words)
        self._record(here)
        self._rounded = [
            Rounding(wanted.dataset, wanted.split, self._settings.dtype, say) for _ in self.filled
        ]

    def parts(
        self, parts: "Iterator[NDArray[np.int64]]", on_progress: Any
    ) -> Iterator[tuple[int, list[tuple[bytes, Spent]]]]:
        """For each array of rows: how many were embedded for it, and of each of `filled` its content.

        With the content comes what the rows cost that were taken from elsewhere.
        """
        import numpy as np

        begun: deque[NDArray[np.int64]] = deque()

        def to_embed() -> "Iterator[NDArray[np.int64]]":
            for rows in parts:
                begun.append(rows)
                yield self.known[0].ask(rows)

        for embedded, features in self._embedded(to_embed(), on_progress):
            of_rows = np.repeat(embedded, self._settings.crops or 1)
            columns = (
                np.split(features, self._ends, axis=1)
                if len(embedded)
                else [features] * len(self.filled)
            )
            rows, found = begun.popleft(), []
            for known, rounded, its in zip(self.known, self._rounded, columns, strict=True):
                values, spent = known.joined(rows, embedded, rounded(of_rows, its))
                found.append((values.tobytes(), spent))
            self._beton.release_pages()
            yield len(embedded), found

    def _embedded(
        self, parts: "Iterator[NDArray[np.int64]]", on_progress: Any
    ) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]":
        import numpy as np

        embedder = self._embedder
        if embedder is None:
            yield from ((rows, np.empty((0, 0), np.float32)) for rows in parts)
            return
        for rows, features in embedder.parts(self._beton, parts, on_progress, self._crops):
            if not np.isfinite(features).all() and embedder.back_to_autocast():
                self._record(self._arithmetic(embedder))
                features = embedder(self._beton, rows, crops=self._crops)
            yield rows, features

    def _is_not_as_here(self, known: "KnownRows", here: Arithmetic, say: Say) -> bool:
        """Whether rows that exist were computed otherwise, which is said.

        On a GPU, whose libraries choose their kernels by rules of their own, some are computed again.
        """
        import numpy as np

        if known.arithmetic is None or self._embedder is None:
            return False
        why = here.difference(known.arithmetic)
        if not why and self._device.type in _CHECKED_ON:
            rows = known.some(self._embedder.batch_size)
            features = self._embedder(self._beton, rows, crops=self._crops)
            of_layer = self.known.index(known)
            columns = np.split(features, self._ends, axis=1)[of_layer].astype(self._settings.dtype)
            nothing = np.empty(0, np.int64), columns[:0]
            if not np.array_equal(known.joined(rows, *nothing)[0], columns):
                why = "with other results, as the same images show here"
        if why:
            say(f"not reused: {known.donors[0].name}, computed {why}")
        return bool(why)

    def _known(self, each: Filled, here: Arithmetic, say: Say, stack: ExitStack) -> "KnownRows":
        from rela.stages.embed.reuse import KnownRows, with_the_same_key

        wanted = each.wanted
        width = wanted.prior.identity.feature_dim
        known = KnownRows(wanted.image_digests, self._crops, width, self._settings.dtype)
        stack.enter_context(known.take_from(with_the_same_key(wanted), here, say))
        return known

    def _loaded(self, say: Say) -> "Embedder":
        from rela.models.layers import with_layers
        from rela.representations.embedder import Embedder

        prior, settings = self.filled[0].wanted.prior, self._settings
        network = prior.load()
        if len(self.filled) > 1:
            layers = [each.wanted.prior.identity.layer for each in self.filled]
            network = with_layers(network, layers)
        embedder = Embedder(
            network, prior.identity.preprocessing, settings.device, settings.batch_size,
            settings.threads,
        )  # fmt: skip
        if settings.dtype == "float16":
            embedder.try_float16(self._beton)
        settle_engine(embedder, self._beton, [each.store for each in self.filled], settings, say)
        return embedder

    def _arithmetic(self, embedder: "Embedder | None" = None) -> Arithmetic:
        """How this process computes; engine and number format are only known of an embedder."""
        from rela.representations.embedder import images_per_batch

        settings, num_images = self._settings, len(self._beton)
        size = images_per_batch(settings.batch_size, num_images, settings.crops or 1)
        here = arithmetic_here(self._device, size, asked_engine(settings, num_images))
        if embedder is None:
            return here
        is_on_cpu = self._device.type == "cpu"
        number_format = embedder.engine.precision if is_on_cpu else embedder.arithmetic
        return replace(here, engine=embedder.engine.name, number_format=number_format)

    def _record(self, arithmetic: Arithmetic) -> None:
        for each in self.filled:
            record_arithmetic(each.store, arithmetic)
