"""Shards in a store and a prior → representations with one file for each shard; the images stay there.

A shard becomes a beton that lasts as long as it is embedded, so that pixels and features are those of a data
set of the same images.
"""

import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.data.beton.encoded import Listing, Outcome, pack
from rela.data.beton.encoding import StoredImage
from rela.data.beton.reader import Beton, open_beton
from rela.data.beton.worker_pool import WorkerPool
from rela.data.beton.writer import WriteResult, write_beton
from rela.errors import ChoiceError, one_line
from rela.options import check_options, part_of
from rela.pipeline import Say
from rela.pipeline.cores import num_cores
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.priors import PriorRequest
from rela.sources import read_shard
from rela.sources.pixels import Origin
from rela.sources.remote import Shard, Shards, list_shards
from rela.sources.source import ImageSource, SourceOptions
from rela.stages.embed.frame import existing, in_parts
from rela.stages.embed.results import EmbedResult
from rela.stages.embed.rows import Filled, ForwardPass, Images, Rows
from rela.stages.embed.shards_joined import Joining, seal_shards
from rela.stages.embed.wanted import STAGE_VERSION, Vectors, digests_of
from rela.stages.priors.identify import identify
from rela.stages.requests import Embed
from rela.stages.settings import ConvertSettings, EmbedSettings
from rela.stages.shards.parts import fill, listing_key
from rela.stages.workspace.encoding import encoding_by
from rela.stages.workspace.representations import describe
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_DEFAULT_SIZE = 224
_MANY_IMAGES = 1 << 40  # in all shards, as long as nobody has counted them
_KEPT = Origin("")  # an image that was converted, whatever it was


@dataclass(frozen=True)
class _Converted:
    """The images of one shard in a beton of their own; `result` also names those that are bad."""

    source: ImageSource
    result: WriteResult
    path: Path


def embed_shards(workspace: Workspace, url: str, request: Embed, say: Say) -> EmbedResult:
    """Embed all images of the shards at `url` with one prior; existing representations are reused.

    The names of the images become a data set without images. Bad images are left out and listed. Raises
    ChoiceError for options that shards cannot have.
    """
    start, settings = Spent.now(), part_of(request, EmbedSettings)
    check_options(settings)
    prior_request = _prior_request(request)
    remote, prior = list_shards(url), identify(workspace, prior_request)
    kind = Vectors(workspace, prior, settings)
    wish = Joining(kind, remote, listing_key(remote, ConvertSettings()))
    meaning = {
        "stage": "embed shards",
        "version": STAGE_VERSION,
        "shards": wish.shards_key,
        "prior": prior.identity.key(),
        "dtype": settings.dtype,
        "precision": settings.precision,
    }
    store = PartStore(workspace.parts_dir(fingerprint(meaning)), len(remote.shards))
    if (result := existing(wish, store.directory, start)) is not None:
        return result
    say(f"prior {prior.identity.name}, layer {prior.identity.layer}, sees "
        f"{prior.identity.preprocessing.words()}")  # fmt: skip

    def make(held: ExitStack) -> tuple[int, Spent]:
        work = _Work(remote, Filled(kind, store, say), say)
        held.enter_context(work.pool)
        describe(store, f"representations of the shards at {url} by {prior.identity.name}", "embed")
        spent = fill(store, remote, remote.shards, request.part, work.convert, work.embed, say)
        new, reused = work.num_embedded, work.num_reused
        if reused:
            are = "image is" if new == 1 else "images are"
            say(f"reused {reused:,} of {reused + new:,} rows; {new:,} {are} embedded")
        return new, spent

    return in_parts(wish, store, start, make, lambda spent: seal_shards(wish, store, spent))


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


class _Work:
    """What one process does with shards; its network is loaded with the first image that needs it."""

    def __init__(self, remote: Shards, filled: Filled, say: Say) -> None:
        self.remote, self.encoding = remote, encoding_by(ConvertSettings())
        self.num_embedded = self.num_reused = 0
        self.pool = WorkerPool(num_cores())
        self._forward = ForwardPass([filled], _MANY_IMAGES, say)

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

    def embed(self, shard: Shard, converted: _Converted) -> tuple[bytearray, Spent]:
        """The part of a shard, its names and digests with its features, and what reused ones cost."""
        result, source = converted.result, converted.source
        stored: dict[str, tuple[str, StoredImage]] = {}
        spent = Spent()
        if result.samples:
            beton = open_beton(converted.path, len(source.class_names))
            sizes = zip(beton.modes, beton.heights, beton.widths, strict=True)
            named = zip(result.samples, result.source_sha256, sizes, strict=True)
            features, spent = self._features(beton, result)
            for (sample, digest, size), row in zip(named, features, strict=True):
                mode, height, width = map(int, size)
                image = StoredImage(row.tobytes(), mode, height, width, _KEPT, False)
                stored[sample.path] = digest, image
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
        listing = Listing(source.class_names, [], [], {})
        return pack(listing, encoded, result.image_sha256), spent

    def _features(self, beton: Beton, result: WriteResult) -> tuple["NDArray[Any]", Spent]:
        """The features [N, D] of the images of a shard, and what those cost that are taken from elsewhere.

        Raises DataError naming images for NaN and Inf.
        """
        import numpy as np

        from rela.representations.matrix_file import ROWS_PER_PART, part_rows

        digests, num_images = digests_of(result.image_sha256), len(beton)
        names = [{"path": sample.path} for sample in result.samples]
        images, every = Images(beton, digests, None, lambda: names), np.arange(num_images)
        parts = (part_rows(part, num_images) for part in range(-(-num_images // ROWS_PER_PART)))
        with ExitStack() as held:
            rows = Rows(self._forward, images, every, held)
            self.num_reused += num_images - rows.num_to_embed(every)
            found = list(rows.parts(parts))
        self.num_embedded += sum(count for count, _ in found)
        blocks = [block for _, (block,) in found]
        spent = sum((cost for _, cost in blocks), Spent())
        return np.concatenate([values for values, _ in blocks]), spent
