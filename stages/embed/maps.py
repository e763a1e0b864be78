"""A data set and a prior → maps of features, k × k positions per image, computed once.

They are representations of another shape, beside the vectors: an artifact in parts, with the same guarantees.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rela.errors import ChoiceError, DataError
from rela.options import check_options, option_words
from rela.pipeline import Say
from rela.pipeline.artifact import cached, clear_abandoned
from rela.pipeline.errors import AlreadyPublishedError, StorageError
from rela.pipeline.files import read_regular, replacing
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.lease import Leases
from rela.pipeline.locks import in_use, mark_used
from rela.pipeline.manifest import Manifest, provenance, remedy
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.priors import PriorRequest
from rela.stages.display import human_bytes, progress_bar
from rela.stages.embed.embed import EmbedResult, joined_rows, row_order
from rela.stages.embed.engine import settle_engine
from rela.stages.embed.rounding import Rounding
from rela.stages.embed.wanted import Wanted
from rela.stages.priors.identify import identify
from rela.stages.settings import DenseSettings, EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import (
    REPRESENTATIONS_FILE,
    Representations,
    describe_parts,
)
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from rela.data.beton.reader import Beton
    from rela.representations.embedder import Embedder
    from rela.training.maps import MapFormat

STAGE_VERSION = 1
FORMAT_FILE = "format.bin"  # beside the parts, then beside the maps


@dataclass(frozen=True)
class _Wanted(Wanted):
    """Maps of one split by a prior: their name, their fingerprint, and where they are."""

    dense: DenseSettings

    @property
    def num_rows(self) -> int:
        return self.dataset.num_images(self.split) * (self.settings.crops or 1)

    def key_of(self, images_sha256: str) -> str:
        from rela.data.crops import CROPS_VERSION

        settings, crops = self.settings, {"num": self.settings.crops, "version": CROPS_VERSION}
        return fingerprint(
            {
                "stage": "maps",
                "version": STAGE_VERSION,
                "images": images_sha256,
                "prior": self.prior.identity.key(),
                "side": self.dense.dense,
                "width": self.dense.dense_width,
                "dtype": self.dense.dense_dtype,
                "precision": settings.precision,
                "crops": crops if settings.crops else None,
            }
        )

    @property
    def command(self) -> list[str]:
        return [*super().command, *option_words(DenseSettings, vars(self.dense))]

    @property
    def shape(self) -> str:
        return f"-{self.dense.dense}x{self.dense.dense}"


def bytes_of_maps(num_rows: int, dense: DenseSettings) -> int:
    """Size of the file, without its header."""
    return num_rows * dense.dense**2 * dense.dense_width * (1 if dense.dense_dtype == "int8" else 2)


def embed_maps(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    dense: DenseSettings,
    settings: EmbedSettings,
    split: str = "train",
    shard: tuple[int, int] = (0, 1),
    say: Say = print,
) -> EmbedResult:
    """Embed every image, or its crops, as a map; existing maps are reused. Shards and resuming as in `embed`.

    Says how large the maps become. Raises StorageError if the disk has no room for them, ChoiceError if the
    layer has no map of that size.
    """
    start = Spent.now()
    check_options(dense)
    wanted = _Wanted(workspace, dataset, split, identify(workspace, request), settings, dense)
    existing, names = wanted.find(), dataset.index_path(split)
    if existing is not None:
        existing.verify_quickly()
        mark_used(existing.path)
        clear_abandoned(existing.path)
        shutil.rmtree(workspace.parts_dir(wanted.key), ignore_errors=True)
        return EmbedResult(existing, names, True, 0, (Spent.now() - start).seconds)
    from rela.representations.matrix_file import ROWS_PER_PART

    num_images = dataset.num_images(split)
    store = PartStore(workspace.parts_dir(wanted.key), -(-num_images // ROWS_PER_PART))
    network = _checked_network(wanted) if store.missing() else None
    _say_size(wanted, store, say)
    with in_use(dataset.path), store.in_use():
        describe_parts(store, dataset.name, split, wanted.prior.identity.name, num_images)
        todo = store.missing(*shard)
        mine = len(range(shard[0], store.num_parts, shard[1]))
        if len(todo) < mine:
            say(f"resuming after {mine - len(todo)} of {mine} parts of the maps")
        count, spent = 0, Spent()
        if todo and network is not None:
            count, spent = _embed_parts(wanted, network, store, todo, say)
        artifact = None
        if not store.missing():
            try:
                artifact = _seal(wanted, store, Spent.now() - start - spent)
            except (DataError, FileNotFoundError):  # a faster process removes the parts
                artifact = wanted.find()
                if artifact is None:
                    raise
    if artifact is not None:
        shutil.rmtree(store.directory, ignore_errors=True)
    return EmbedResult(artifact, names, False, count, (Spent.now() - start).seconds)


def find_maps(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    dense: DenseSettings,
    settings: EmbedSettings,
    split: str,
) -> Representations | None:
    """The maps that `embed_maps` would reuse, if any; builds and writes nothing."""
    try:
        prior = identify(workspace, request, may_build=False)
    except ChoiceError:
        return None
    return _Wanted(workspace, dataset, split, prior, settings, dense).find()


def _say_size(wanted: _Wanted, store: PartStore, say: Say) -> None:
    """Say how large the maps become; raises StorageError if the disk is too small for them."""
    dense, crops = wanted.dense, wanted.settings.crops
    size = bytes_of_maps(wanted.num_rows, dense)
    of_crops = f" of {crops} crops each" if crops else ""
    images = f"{wanted.dataset.num_images(wanted.split):,} images{of_crops}"
    values = f"at most {dense.dense_width} components of {dense.dense_dtype}"
    say(
        f"maps of {wanted.prior.identity.layer}: {images} × {dense.dense} × {dense.dense} positions × "
        f"{values}: {human_bytes(size)} on disk, twice that while the parts are joined"
    )
    there = sum(path.stat().st_size for path in store.finished())
    place = wanted.workspace.root
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    if 2 * size - there > free:
        raise StorageError(
            f"{place} has {human_bytes(free)} free, these maps need {human_bytes(2 * size - there)}; free "
            "some space, or choose a smaller --dense, --dense-width or --crops, or --dense-dtype int8"
        )


def _checked_network(wanted: _Wanted) -> "nn.Module":
    """The prior that gives maps, not projected; raises ChoiceError if its map has fewer positions."""
    from rela.models.backbones import feature_dim
    from rela.models.layers import with_layers

    identity, side = wanted.prior.identity, wanted.dense.dense
    network = with_layers(wanted.prior.load(), [f"{identity.layer}:{side}x{side}"])
    feature_dim(network, identity.image_size)
    return network


def _embed_parts(
    wanted: _Wanted, network: "nn.Module", store: PartStore, todo: list[int], say: Say
) -> tuple[int, Spent]:
    """Compute the missing parts that no other process computes; the number of images, and the cost."""
    import numpy as np

    from rela.data.crops import CropPlan
    from rela.representations.embedder import Embedder
    from rela.representations.matrix_file import ROWS_PER_PART, part_rows

    prior, settings = wanted.prior, wanted.settings
    beton = wanted.dataset.open(wanted.split)
    crops = CropPlan(settings.crops).draw(beton) if settings.crops else None
    embedder = Embedder(
        network, prior.identity.preprocessing, settings.device, settings.batch_size,
        settings.threads,
    )  # fmt: skip
    embedder.try_float16(beton)
    settle_engine(embedder, beton, [store], settings, say)
    format_ = _settle_format(wanted, store, embedder, beton, crops)
    embedder.finish = format_.project
    is_finite = Rounding(wanted.dataset, wanted.split, "float32", say)
    num_todo = sum(len(part_rows(part, len(beton))) for part in todo)
    count, all_spent = 0, Spent()
    with (
        progress_bar(len(beton), "maps", "img", initial=len(beton) - num_todo) as bar,
        Leases(store.directory) as leases,
    ):
        claimed = (part_rows(part, len(beton)) for part in store.claim(todo, leases))
        part_start = Spent.now()
        for rows, found in embedder.parts(beton, claimed, bar.update, crops):
            features = found
            if not np.isfinite(features).all() and embedder.back_to_autocast():
                features = embedder(beton, rows, crops=crops)
            values = format_.stored(is_finite(np.repeat(rows, settings.crops or 1), features))
            beton.release_pages()
            spent = Spent.now() - part_start
            store.write(int(rows[0]) // ROWS_PER_PART, values.tobytes(), spent, leases)
            count, all_spent, part_start = count + len(rows), all_spent + spent, Spent.now()
    return count, all_spent


def _settle_format(
    wanted: _Wanted,
    store: PartStore,
    embedder: "Embedder",
    beton: "Beton",
    crops: "NDArray[np.uint16] | None",
) -> "MapFormat":
    """The projection of the parts: fitted once, recorded beside them, used by every process."""
    import numpy as np

    from rela.training.maps import MapFormat, fitted_rows

    path, dense = store.directory / FORMAT_FILE, wanted.dense
    if path.exists():
        return _read_format(path)
    if store.finished():
        raise DataError(
            f"{path} is missing, without which the finished parts mean nothing; {remedy(store.directory)}"
        )
    one_crop = None if crops is None else crops[:, :1]
    num_values = embedder(beton, np.arange(1), crops=one_crop).size
    features = embedder(beton, fitted_rows(len(beton), num_values), crops=one_crop)
    positions = features.reshape(len(features) * dense.dense**2, -1)
    if not np.isfinite(positions).all():
        raise DataError("the prior returns NaN or Inf for some images; check its weights")
    fitted = MapFormat.fit(positions, dense.dense, dense.dense_width, dense.dense_dtype)
    try:
        with replacing(path, clobber=False) as temporary:
            temporary.write_bytes(fitted.to_bytes())
    except AlreadyPublishedError:  # another process was faster
        return _read_format(path)
    return fitted


def _read_format(path: Path) -> "MapFormat":
    from rela.training.maps import MapFormat

    try:
        return MapFormat.from_bytes(read_regular(path))
    except DataError as error:
        raise DataError(f"{path} is damaged; {remedy(path.parent)}") from error


def _seal(wanted: _Wanted, store: PartStore, overhead: Spent) -> Representations:
    """Join all parts in one HDF5 file and publish it, or take that of a faster process."""

    from rela.data.crops import CropPlan
    from rela.representations.matrix_file import write_matrix

    dataset, settings, identity = wanted.dataset, wanted.settings, wanted.prior.identity
    format_ = _read_format(store.directory / FORMAT_FILE)
    columns = format_.side**2 * format_.width

    crops = None
    if settings.crops:
        crops = CropPlan(settings.crops).draw(dataset.open(wanted.split))
    attributes = {
        "prior": identity.name,
        "weights_sha256": identity.weights_sha256,
        "layer": identity.layer,
        "dataset": dataset.name,
        "split": wanted.split,
        "map_shape": json.dumps([format_.side, format_.side, format_.width]),
        "crops_per_image": settings.crops,
        "row_order": row_order(settings.crops),
    }
    if format_.step is not None:
        attributes["int8_step"] = json.dumps(format_.step.tolist())
    seal_start = Spent.now()
    spent = store.spent() + overhead

    def fill(directory: Path) -> Manifest:
        (directory / FORMAT_FILE).write_bytes(format_.to_bytes())
        path = directory / REPRESENTATIONS_FILE
        shape = wanted.num_rows, columns
        write_matrix(
            path,
            joined_rows(store, format_.dtype, columns),
            shape,
            format_.dtype,
            attributes,
            crops,
        )
        return Manifest(
            kind="representations",
            fingerprint=wanted.key,
            inputs={"images": wanted.images_sha256, "prior": identity.weights_sha256},
            parameters={"dtype": format_.dtype, "precision": settings.precision},
            content={
                "shape": list(shape),
                "map": [format_.side, format_.side, format_.width],
                "crops": settings.crops,
                "prior": identity.as_dict(),
                "run": wanted.prior.run,
                "dataset": dataset.name,
                "split": wanted.split,
            },
            provenance=provenance(spent + (Spent.now() - seal_start), wanted.command),
        )

    return cached(wanted.destination, Representations, wanted.find, fill)[0]


def format_maps(result: EmbedResult) -> str:
    """The maps and their path."""
    artifact = result.artifact
    if artifact is None:
        return f"this shard of the maps is done ({result.num_embedded:,} images); other shards still work"
    shape = " × ".join(f"{each:,}" for each in (artifact.content.shape[0], *artifact.content.map))
    what = f"{shape} maps of data set {artifact.content.dataset} ({artifact.content.split})"
    return f"{what}{' already exist' if result.cached else ''}: {artifact.path}"
