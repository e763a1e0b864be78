"""The rows of images: those that exist, and those of forward passes, for one result or several at once."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

from rela.pipeline import Say
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.stages.embed.arithmetic import Arithmetic, arithmetic_here, record_arithmetic
from rela.stages.embed.engine import asked_engine, begun_with, continue_with, settle_engine
from rela.stages.embed.format import Format, record_format
from rela.stages.embed.rounding import Names, Rounding
from rela.stages.embed.wanted import Vectors

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from rela.data.beton.reader import Beton
    from rela.representations.embedder import Embedder
    from rela.stages.embed.reuse import Crops, Digests, Donor

_CHECKED_ON = ("cuda",)


@dataclass(frozen=True)
class Images:
    """Images in a beton: digests [N, 32], crops, and what names each, see Rounding."""

    beton: "Beton"
    digests: "Digests"
    crops: "Crops"
    names: Names


class Filled:
    """A result whose parts are made now, where those are kept, and what its rows can be taken from."""

    def __init__(self, kind: Vectors, store: PartStore, say: Say) -> None:
        self.kind, self.store, self.say = kind, store, say
        self.rounding = Rounding(list, "float32" if kind.grid else kind.settings.dtype, say)

    @cached_property
    def donors(self) -> "list[Donor]":
        """Opened once; says which cannot be used."""
        from rela.stages.embed.reuse import donors_of

        return donors_of(self.kind, self.say)


class ForwardPass:
    """The network of several results, all by one prior, which is loaded with the first image that needs it.

    `num_images` of the whole job decide the size of a forward pass and the engine.
    """

    def __init__(self, filled: Sequence[Filled], num_images: int, say: Say) -> None:
        from rela.representations.embedder import choose_device

        self.filled, self.settings, self.say = filled, filled[0].kind.settings, say
        self.device, self._num_images = choose_device(self.settings.device), num_images
        self.embedder: Embedder | None = None
        self.num_features: list[int] = []  # of each result, side by side

    def arithmetic(self) -> Arithmetic:
        """How this process computes; engine and number format as far as they are known."""
        from rela.representations.embedder import images_per_batch

        settings, num_images, embedder = self.settings, self._num_images, self.embedder
        size = images_per_batch(settings.batch_size, num_images, settings.crops or 1)
        here = arithmetic_here(self.device, size, asked_engine(settings, num_images))
        engine = embedder.engine if embedder else begun_with(self.filled[0].store)
        if engine is None:
            return here
        on_gpu = embedder.arithmetic if embedder else ""
        number_format = engine.precision if self.device.type == "cpu" else on_gpu
        return replace(here, engine=engine.name, number_format=number_format)

    def load(self, beton: "Beton") -> "Embedder":
        """The network for these images, which on a GPU decide on its number format; `finish` is not set."""
        from rela.models.layers import with_layers
        from rela.representations.embedder import Embedder

        settings, kinds, is_new = self.settings, [f.kind for f in self.filled], not self.embedder
        if self.embedder is None:
            identity, network = kinds[0].prior.identity, kinds[0].load()
            self.num_features = [kind.num_features(network) for kind in kinds]
            layers = [kind.layer for kind in kinds]
            if layers != [identity.layer]:
                network = with_layers(network, layers)
            self.embedder = Embedder(
                network, identity.preprocessing, settings.device, settings.batch_size,
                settings.threads, self._num_images,
            )  # fmt: skip
        embedder, embedder.finish = self.embedder, None
        embedder.back_to_autocast()
        if settings.dtype == "float16":
            embedder.try_float16(beton)
        if is_new:
            stores = [each.store for each in self.filled]
            settle_engine(embedder, beton, stores, settings, self._num_images, self.say)
        return embedder


class _Column:
    """One result of a pass: which rows of the images are known, and how others are stored."""

    format: Format

    def __init__(self, filled: Filled, images: Images) -> None:
        from rela.stages.embed.reuse import KnownRows

        self.kind, self.store, self._rounding = filled.kind, filled.store, filled.rounding
        recorded = self.kind.recorded_format(self.store.directory)
        self.known = KnownRows(images.digests, images.crops, recorded)
        self._rounding.names = images.names
        self.recorded_format = b""

    def settle_format(self, recorded: bytes) -> None:
        """Use this format, which is not kept yet."""
        self.recorded_format, self.format = recorded, self.kind.read_format(recorded)

    def stored(self, rows: "NDArray[np.int64]", values: "NDArray[np.float32]") -> "NDArray[Any]":
        """The numbers [R, columns] of these rows as they are stored; raises DataError for NaN and Inf."""
        return self.format.stored(self._rounding(rows, values))


class Rows:
    """The rows of some images, for each result of a pass."""

    def __init__(
        self, forward: ForwardPass, images: Images, rows: "NDArray[np.int64]", held: ExitStack
    ) -> None:
        """Find rows that exist, and load the prior if others are missing; `held` protects what is used."""
        self._forward, self._images = forward, images
        self._embedder: Embedder | None = None
        is_settled = False
        while not is_settled:  # again if another process has just begun with another format
            self._record(self._choose(rows, held))  # before the format, which depends on it
            is_settled = all(
                record_format(c.store.directory, c.recorded_format) == c.recorded_format
                for c in self._columns
            )

    def words(self) -> list[str]:
        """Of each result, how many rows are taken from elsewhere."""
        return [words for column in self._columns if (words := column.known.words())]

    def num_to_embed(self, rows: "NDArray[np.int64]") -> int:
        """How many of these images need a forward pass."""
        return len(self._union(column.known.to_embed(rows) for column in self._columns))

    def parts(
        self, parts: "Iterator[NDArray[np.int64]]", on_progress: Any = lambda count: None
    ) -> "Iterator[tuple[int, list[tuple[NDArray[Any], Spent]]]]":
        """For each array of rows: how many images were embedded for it, and the stored rows of each result.

        With these comes what those cost that were taken from elsewhere.
        """
        import numpy as np

        begun: deque[NDArray[np.int64]] = deque()

        def to_embed() -> "Iterator[NDArray[np.int64]]":
            for rows in parts:
                begun.append(rows)
                yield self._union(column.known.ask(rows) for column in self._columns)

        for embedded, features in self._embedded(to_embed(), on_progress):
            of_rows = np.repeat(embedded, self._forward.settings.crops or 1)
            rows, found = begun.popleft(), []
            for column, values in zip(self._columns, self._of_each(features), strict=True):
                stored = column.stored(of_rows, values)
                found.append(column.known.joined(rows, embedded, stored))
            self._images.beton.release_pages()
            yield len(embedded), found

    def _choose(self, rows: "NDArray[np.int64]", held: ExitStack) -> Arithmetic:
        """Decide which rows are taken and how others are computed, and return the latter."""
        forward, images = self._forward, self._images
        here = forward.arithmetic()
        self._columns = [_Column(each, images) for each in forward.filled]
        for filled, column in zip(forward.filled, self._columns, strict=True):
            known = column.known
            held.enter_context(known.take_from(filled.donors, here, forward.say))
            if known.arithmetic is None:
                continue
            stores, donor = (forward.filled[0].store, filled.store), known.donors[0].representations
            if all(continue_with(store, donor) for store in stores):
                here = replace(known.arithmetic, asked=here.asked)
            else:
                known.forget()  # another process has just begun, with another engine
        self._embedder = forward.load(images.beton) if self.num_to_embed(rows) else None
        every = range(len(self._columns))
        self._settle_formats(every)
        if self._embedder is not None:
            here = forward.arithmetic()
            others = [number for number in every if self._is_not_as_here(number, here)]
            for number in others:
                self._columns[number].known.forget()
            self._settle_formats(others)
        return here

    def _settle_formats(self, numbers: Sequence[int]) -> None:
        """Of these columns, that which is recorded beside the parts or beside known rows, else a new one."""
        for number in numbers:
            recorded = self._columns[number].known.recorded_format
            self._columns[number].settle_format(self._fit(number) if recorded is None else recorded)
        if self._embedder is not None and any(column.kind.grid for column in self._columns):
            self._embedder.finish = self._project

    def _fit(self, number: int) -> bytes:
        from rela.training.maps import fitted_images

        embedder, images, column = self._embedder, self._images, self._columns[number]
        assert embedder is not None, "rows that are all known have a format"
        rows = fitted_images(column.known.keys, self._forward.num_features[number])
        embedder.finish, one_crop = None, None if images.crops is None else images.crops[:, :1]
        features = embedder(images.beton, rows, crops=one_crop)
        return column.kind.fit_format(_split(features, self._forward.num_features)[number])

    def _project(self, features: "torch.Tensor") -> "torch.Tensor":
        import torch

        each = torch.split(features, self._forward.num_features, dim=1)
        pairs = zip(self._columns, each, strict=True)
        return torch.cat([column.format.project(its) for column, its in pairs], dim=1)

    def _of_each(self, features: "NDArray[np.float32]") -> "list[NDArray[np.float32]]":
        """Of what the network and `_project` give, the columns of each result; of nothing, no rows."""
        import numpy as np

        widths = [column.format.columns for column in self._columns]
        if not len(features):
            return [np.empty((0, width), np.float32) for width in widths]
        return _split(features, widths)

    def _embedded(
        self, parts: "Iterator[NDArray[np.int64]]", on_progress: Any
    ) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]":
        import numpy as np

        embedder, images = self._embedder, self._images
        if embedder is None:
            yield from ((rows, np.empty((0, 0), np.float32)) for rows in parts)
            return
        for rows, features in embedder.parts(images.beton, parts, on_progress, images.crops):
            if np.isfinite(features).all() or not embedder.back_to_autocast():
                yield rows, features
            else:
                self._record(self._forward.arithmetic())
                yield rows, embedder(images.beton, rows, crops=images.crops)

    def _is_not_as_here(self, number: int, here: Arithmetic) -> bool:
        """Whether rows that exist were computed otherwise, which is said.

        On a GPU, whose libraries choose their kernels by rules of their own, some are computed again.
        """
        import numpy as np

        column, embedder, images = self._columns[number], self._embedder, self._images
        known = column.known
        if known.arithmetic is None or embedder is None:
            return False
        why = here.difference(known.arithmetic)
        if not why and self._forward.device.type in _CHECKED_ON:
            rows = known.some(embedder.batch_size)
            found = self._of_each(embedder(images.beton, rows, crops=images.crops))[number]
            stored = column.format.stored(found)
            if not np.array_equal(known.joined(rows, rows[:0], stored[:0])[0], stored):
                why = "with other results, as the same images show here"
        if why:
            self._forward.say(f"not reused: {known.donors[0].representations.name}, computed {why}")
        return bool(why)

    def _record(self, arithmetic: Arithmetic) -> None:
        for column in self._columns:
            record_arithmetic(column.store, arithmetic)

    @staticmethod
    def _union(parts: "Iterator[NDArray[np.int64]]") -> "NDArray[np.int64]":
        import numpy as np

        return reduce(np.union1d, parts)


def _split(features: "NDArray[np.float32]", widths: Sequence[int]) -> "list[NDArray[np.float32]]":
    ends = itertools.accumulate(widths, initial=0)
    return [features[:, start:end] for start, end in itertools.pairwise(ends)]
