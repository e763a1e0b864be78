"""Shards in a store and a prior → representations with one file for each shard; the images stay there.

A shard becomes a beton that lasts as long as it is embedded, so that pixels and features are those of a data
set of the same images.
"""

import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.data.beton.encoded import Listing, Outcome, pack
from rela.data.beton.encoding import StoredImage
from rela.data.beton.reader import Beton, open_beton
from rela.data.beton.worker_pool import WorkerPool
from rela.data.beton.writer import WriteResult, write_beton
from rela.errors import ChoiceError, DataError, one_line
from rela.options import check_options, part_of
from rela.pipeline.cores import num_cores
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.locks import mark_used
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.priors import PriorRequest
from rela.sources import read_shard
from rela.sources.pixels import Origin
from rela.sources.remote import Shard, Shards, list_shards
from rela.sources.source import ImageSource, SourceOptions
from rela.stages.embed.embed import EmbedResult
from rela.stages.embed.engine import settle_engine
from rela.stages.embed.rounding import Rounding
from rela.stages.embed.shards_joined import Joining, seal_shards
from rela.stages.embed.wanted import STAGE_VERSION
from rela.stages.priors.identify import KnownPrior, identify
from rela.stages.requests import Embed
from rela.stages.settings import ConvertSettings, EmbedSettings
from rela.stages.shards.parts import fill, listing_key
from rela.stages.workspace.encoding import encoding_by
from rela.stages.workspace.representations import describe
from rela.stages.workspace.workspace import Workspace

_LARGEST_DEFAULT_SIZE = 224
_KEPT = Origin("")  # an image that was converted, whatever it was


@dataclass(frozen=True)
class _Converted:
    """The images of one shard in a beton of their own; `result` also names those that are bad."""

    source: ImageSource
    result: WriteResult
    path: Path


def embed_shards(
    workspace: Workspace, url: str, request: Embed, say: Callable[[str], None]
) -> EmbedResult:
    """Embed all images of the shards at `url` with one prior; existing representations are reused.

    The names of the images become a data set without images. Bad images are left out and listed. Raises
    ChoiceError for options that shards cannot have.
    """
    start, settings = Spent.now(), part_of(request, EmbedSettings)
    check_options(settings)
    prior_request = _prior_request(request)
    remote, prior = list_shards(url), identify(workspace, prior_request)
    join = Joining(workspace, remote, listing_key(remote, ConvertSettings()), prior, settings)
    if (existing := join.find()) is not None:
        existing.verify_quickly()
        mark_used(existing.path)
        return EmbedResult(existing, join.names, True, 0, (Spent.now() - start).seconds)
    meaning = {
        "stage": "embed shards",
        "version": STAGE_VERSION,
        "shards": join.shards_key,
        "prior": prior.identity.key(),
        "dtype": settings.dtype,
        "precision": settings.precision,
    }
    store = PartStore(workspace.parts_dir(fingerprint(meaning)), len(remote.shards))
    say(f"prior {prior.identity.name}, layer {prior.identity.layer}, sees "
        f"{prior.identity.preprocessing.words()}")  # fmt: skip
    work = _Work(remote, prior, settings, store, say)
    with store.in_use(), work.pool:
        describe(store, f"representations of the shards at {url} by {prior.identity.name}", "embed")
        here = fill(store, remote, remote.shards, request.part, work.convert, work.embed, say)
        artifact = None
        if not store.missing():
            try:
                artifact = seal_shards(join, store, Spent.now() - start - here)
            except (DataError, FileNotFoundError):  # a faster process removes the parts
                if (artifact := join.find()) is None:
                    raise
        artifact = artifact or join.find()
    if artifact is not None:
        shutil.rmtree(store.directory, ignore_errors=True)
    return EmbedResult(
        artifact, join.names, False, work.num_embedded, (Spent.now() - start).seconds
    )


def _prior_request(request: Embed) -> PriorRequest:
    """The one prior of a request, at one layer; a prior without a size of its own sees 224 × 224 pixels."""
    described = request.by_layer
    if len(request.priors) > 1 or len(described) > 1:
        raise ChoiceError(
            "shards are embedded with one --prior at one --layer; run it once for each"
        )
    if request.crops or request.dense or request.split != "train":
        option = "--crops" if request.crops else "--dense" if request.dense else "--split"
        raise ChoiceError(
            f"{option} does not apply to shards, whose images are all embedded, once; remove it"
        )
    options = vars(described[0])
    size = options["image_size"]
    return PriorRequest(
        request.priors[0],
        **{**options, "image_size": size or _LARGEST_DEFAULT_SIZE, "resizes": size is not None},
    )


@dataclass(frozen=True)
class _Names:
    """The images of a shard, as Rounding names them."""

    rows: list[dict[str, str]]

    def index(self, split: str) -> list[dict[str, str]]:
        """All of them."""
        return self.rows


class _Work:
    """What one process does with shards; its network is loaded with the first."""

    def __init__(
        self,
        remote: Shards,
        prior: KnownPrior,
        settings: EmbedSettings,
        store: PartStore,
        say: Callable[[str], None],
    ) -> None:
        self.remote, self.prior, self.settings, self.store, self.say = (
            remote, prior, settings, store, say,
        )  # fmt: skip
        self.encoding = encoding_by(ConvertSettings())
        self.num_embedded, self.pool = 0, WorkerPool(num_cores())
        self._embedder: Any = None
        self._rounding = Rounding(_Names([]), "train", settings.dtype, say)

    def convert(self, shard: Shard, file: Path) -> _Converted:
        """The beton of a shard, beside its copy, which is removed."""
        url = self.remote.url_of(shard)
        source = read_shard(file, shard.name, self.remote.kind, SourceOptions(), url)
        path = file.with_name("images.beton")
        samples = source.splits["train"]
        result = write_beton(path, source.root, samples, self.encoding, self.pool)
        if result.tally.largest:
            raise ChoiceError(
                f"{one_line(url)} has images of more than 8 bits of an undeclared range, such as "
                f"{one_line(result.tally.deep.names[0])}; convert the shards, then embed the data set: "
                f"`rela convert {one_line(shlex.quote(self.remote.url))} --bits 16`"
            )
        file.unlink()
        return _Converted(source, result, path)

    def embed(self, shard: Shard, converted: _Converted) -> bytearray:
        """The part of a shard: its names and digests with its features."""
        result, source = converted.result, converted.source
        stored: dict[str, tuple[str, StoredImage]] = {}
        if result.samples:
            beton = open_beton(converted.path, len(source.class_names))
            sizes = zip(beton.modes, beton.heights, beton.widths, strict=True)
            named = zip(result.samples, result.source_sha256, sizes, strict=True)
            for (sample, digest, size), row in zip(
                named, self._features(beton, result), strict=True
            ):
                mode, height, width = map(int, size)
                stored[sample.path] = digest, StoredImage(row, mode, height, width, _KEPT, False)
        self.num_embedded += len(stored)
        bad = dict(
            zip((path for path, _ in result.bad_images), result.bad_image_sha256, strict=True)
        )
        reasons = dict(result.bad_images)
        encoded = [
            (
                s,
                Outcome(*stored[s.path])
                if s.path in stored
                else Outcome(bad[s.path], None, reasons[s.path]),
            )
            for s in source.splits["train"]
        ]
        return pack(Listing(source.class_names, [], [], {}), encoded, result.image_sha256)

    def _features(self, beton: Beton, result: WriteResult) -> Iterator[bytes]:
        """Each image's features in the stored type. Raises DataError naming images for NaN and Inf."""
        import numpy as np

        from rela.representations.matrix_file import ROWS_PER_PART, part_rows

        embedder = self._embedder_for(beton)
        paths = [{"path": sample.path} for sample in result.samples]
        self._rounding.dataset = _Names(paths)
        parts = (part_rows(part, len(beton)) for part in range(-(-len(beton) // ROWS_PER_PART)))
        for rows, features in embedder.parts(beton, parts):
            if not np.isfinite(features).all() and embedder.back_to_autocast():
                features = embedder(beton, rows)
            for row in self._rounding(rows, features):
                yield row.tobytes()
            beton.release_pages()

    def _embedder_for(self, beton: Beton) -> Any:
        """The embedder of this process; whether it computes in float16 depends on the shard alone."""
        from rela.representations.embedder import Embedder

        settings, is_new = self.settings, self._embedder is None
        if is_new:
            self._embedder = Embedder(
                self.prior.load(), self.prior.identity.preprocessing, settings.device,
                settings.batch_size, settings.threads,
            )  # fmt: skip
        self._embedder.back_to_autocast()
        if settings.dtype == "float16":
            self._embedder.try_float16(beton)
        if is_new:
            settle_engine(self._embedder, beton, [self.store], settings, self.say)
        return self._embedder
