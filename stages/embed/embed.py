"""A data set and a prior → representations, computed once."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError
from rela.options import check_options
from rela.pipeline.artifact import cached, clear_abandoned
from rela.pipeline.locks import in_use, mark_used
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.priors import PriorIdentity, PriorRequest
from rela.result import Result
from rela.stages.embed.arithmetic import recorded_arithmetic
from rela.stages.embed.engine import begun_with, recorded_engine
from rela.stages.embed.parts import Filled, embed_parts
from rela.stages.embed.wanted import Wanted
from rela.stages.priors.identify import identify
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import (
    REPRESENTATIONS_FILE,
    Representations,
    describe_parts,
)
from rela.stages.workspace.workspace import Workspace


@dataclass(frozen=True, repr=False)
class EmbedResult(Result):
    """The representations (None while other shards still work), and whether they existed.

    `names` is the CSV of the data set; column `path` of its row i is the image of row i.
    """

    artifact: Representations | None
    names: Path
    cached: bool
    num_embedded: int
    seconds: float

    def shown(self) -> dict[str, Any]:
        """The representations, and what they took."""
        known = {"waits for": "other shards"} if self.artifact is None else self.artifact.shown()
        return {**known, "cached": self.cached, "seconds": round(self.seconds, 1)}


if TYPE_CHECKING:
    from numpy.typing import NDArray


def embed(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    settings: EmbedSettings | None = None,
    split: str = "train",
    shard: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = print,
    beside: Sequence[PriorRequest] = (),
) -> EmbedResult:
    """Embed every image of one split with the prior; existing representations are reused.

    `beside`: the same prior at other layers, whose missing parts are computed in the same forward pass.
    `shard` (i, n) computes every n-th part from i on; the process that finds all parts finished joins
    them. An interrupted call keeps its finished parts for the next one. Raises DataError naming the
    images for which the prior returns NaN or Inf.
    """
    start = Spent.now()
    settings = settings or EmbedSettings()
    check_options(settings)
    prior = identify(workspace, request)
    wanted = Wanted(workspace, dataset, split, prior, settings)
    existing = wanted.find()
    names, parts_directory = dataset.index_path(split), workspace.parts_dir(wanted.key)
    if existing is not None:
        existing.verify_quickly()
        mark_used(existing.path)
        clear_abandoned(existing.path)
        shutil.rmtree(parts_directory, ignore_errors=True)  # left by a slower call
        return EmbedResult(existing, names, True, 0, (Spent.now() - start).seconds)
    at_others = (
        Wanted(workspace, dataset, split, identify(workspace, r), settings) for r in beside
    )
    others = [each for each in at_others if each.find() is None]
    from rela.representations.matrix_file import ROWS_PER_PART

    num_images = dataset.num_images(split)
    store = PartStore(parts_directory, -(-num_images // ROWS_PER_PART))
    with in_use(dataset.path), store.in_use(), ExitStack() as stores_in_use:
        describe_parts(store, dataset.name, split, prior.identity.name, num_images)
        filled = [Filled(wanted, store)]
        for its in others:
            its_store = PartStore(workspace.parts_dir(its.key), store.num_parts)
            if begun_with(its_store) in (None, begun_with(store)):
                stores_in_use.enter_context(its_store.in_use())
                describe_parts(its_store, dataset.name, split, its.prior.identity.name, num_images)
                filled.append(Filled(its, its_store))
        todo = store.missing(*shard)
        if todo:  # else they were computed with another layer
            _say_prior(wanted, others, say)
        mine = len(range(shard[0], store.num_parts, shard[1]))
        if 0 < len(todo) < mine:
            say(f"resuming after {mine - len(todo)} of {mine} parts")
        num_embedded, spent_on_parts = embed_parts(filled, todo, say)
        artifact = None
        if not store.missing():
            try:
                artifact = _seal(wanted, store, Spent.now() - start - spent_on_parts)
            except (DataError, FileNotFoundError):  # a faster process removes the parts
                artifact = wanted.find()
                if artifact is None:
                    raise
        artifact = artifact or wanted.find()
    if artifact is not None:  # after its lock file is closed: NFS keeps open files
        shutil.rmtree(store.directory, ignore_errors=True)
    return EmbedResult(artifact, names, False, num_embedded, (Spent.now() - start).seconds)


def _say_prior(wanted: Wanted, others: Sequence[Wanted], say: Callable[[str], None]) -> None:
    """Say which prior sees what, at which layers, and what is not reused because it saw something else."""
    prior, identity = wanted.prior, wanted.prior.identity
    if prior.note:
        say(prior.note)
    what = "prior" if prior.run is None else "run"
    of_val = " (val)" if wanted.split == "val" else ""
    layers = " and ".join([identity.layer, *(each.prior.identity.layer for each in others)])
    say(f"{what} {identity.name}{of_val}, layer {layers}, sees {identity.preprocessing.words()}")
    for other in wanted.workspace.representations(wanted.images_sha256):
        if isinstance(other.prior, PriorIdentity) and _differs_in_preprocessing(
            other.prior, identity
        ):
            say(f"not reused: {other.name}, where it saw {other.prior.preprocessing.words()}")


def _differs_in_preprocessing(one: PriorIdentity, other: PriorIdentity) -> bool:
    """Whether they are equal but for what they see of an image, at the same input size or not."""
    return one.preprocessing != other.preprocessing and (
        (one.arch, one.weights_sha256, one.layer) == (other.arch, other.weights_sha256, other.layer)
    )


def find_representations(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    settings: EmbedSettings,
    split: str = "train",
) -> Representations | None:
    """The representations that `embed` would reuse, if any; builds and writes nothing."""
    try:
        prior = identify(workspace, request, may_build=False)
    except ChoiceError:
        return None
    return Wanted(workspace, dataset, split, prior, settings).find()


def row_order(num_crops: int) -> str:
    """Which image a row belongs to."""
    if num_crops:
        return "row i·K + k belongs to crop k of the sample whose field `index` is i"
    return "row i belongs to the sample whose field `index` is i"


def attributes_of(
    identity: PriorIdentity, dataset: DataSet, split: str, num_crops: int
) -> dict[str, Any]:
    """What a file of features says of itself."""
    return {
        "prior": identity.name,
        "architecture": identity.arch,
        "weights_sha256": identity.weights_sha256,
        "preprocessing": json.dumps(identity.preprocessing.as_dict()),
        "layer": identity.layer,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "split": split,
        "class_names": json.dumps(dataset.content.class_names),
        "crops_per_image": num_crops,
        "row_order": row_order(num_crops),
    }


def joined_rows(store: PartStore, dtype: str, width: int) -> "Iterator[NDArray[Any]]":
    """The rows [n, width] of all parts, n ≤ ROWS_PER_PART at a time; DataError if a part is damaged."""
    import numpy as np

    from rela.representations.matrix_file import ROWS_PER_PART

    for part in range(store.num_parts):
        stored = store.read(part)
        if stored is None:
            raise DataError(f"part {part} of {store.directory} was damaged; run the command again")
        rows = np.frombuffer(stored, dtype).reshape(-1, width)
        for start in range(0, len(rows), ROWS_PER_PART):
            yield rows[start : start + ROWS_PER_PART]


def _seal(wanted: Wanted, store: PartStore, overhead: Spent) -> Representations:
    """Join all parts in one HDF5 file and publish it, or take that of a faster process.

    The recorded cost is that of every part, interrupted calls and other shards included, plus
    this call's start and joining.
    """

    from rela.data.crops import CropPlan
    from rela.representations.matrix_file import write_matrix

    dataset, split, settings = wanted.dataset, wanted.split, wanted.settings
    identity, num_images = wanted.prior.identity, dataset.num_images(split)
    width = identity.feature_dim

    crops = None
    if settings.crops:
        crops = CropPlan(settings.crops).draw(dataset.open(split))
    num_rows = num_images * (settings.crops or 1)
    attributes = attributes_of(identity, dataset, split, settings.crops)
    engine, arithmetic = recorded_engine(store), recorded_arithmetic(store)
    seal_start = Spent.now()
    spent = store.spent() + overhead

    def fill(directory: Path) -> Manifest:
        path = directory / REPRESENTATIONS_FILE
        write_matrix(
            path,
            joined_rows(store, settings.dtype, width),
            (num_rows, width),
            settings.dtype,
            attributes,
            crops,
            wanted.image_digests,
        )
        return Manifest(
            kind="representations",
            fingerprint=wanted.key,
            inputs={"images": wanted.images_sha256, "prior": identity.weights_sha256},
            parameters={
                "dtype": settings.dtype,
                "layer": identity.layer,
                "crops": settings.crops,
                "precision": settings.precision,
            },
            content={
                "shape": [num_rows, width],
                "crops": settings.crops,
                "prior": identity.as_dict(),
                "run": wanted.prior.run,
                "dataset": dataset.name,
                "split": split,
            },
            provenance=provenance(spent + (Spent.now() - seal_start), wanted.command)
            | {"batch_size": settings.batch_size, "device": settings.device}
            | ({"arithmetic": arithmetic} if arithmetic else {})
            | ({"engine": asdict(engine)} if engine is not None else {}),
        )

    return cached(wanted.destination, Representations, wanted.find, fill)[0]
