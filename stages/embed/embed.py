"""A data set and a prior → representations, computed once."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError
from rela.models.own_code.networks import said_of_code
from rela.options import check_options
from rela.pipeline import Say
from rela.pipeline.artifact import cached
from rela.pipeline.locks import in_use
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.parts import PartStore, SharedParts
from rela.pipeline.spent import Spent
from rela.priors import PriorIdentity, PriorRequest
from rela.stages.display import progress_bar
from rela.stages.embed.arithmetic import recorded_arithmetic
from rela.stages.embed.engine import begun_with, recorded_engine
from rela.stages.embed.format import FORMAT_FILE
from rela.stages.embed.frame import existing, in_parts
from rela.stages.embed.maps import Maps
from rela.stages.embed.results import EmbedResult
from rela.stages.embed.rows import Filled, ForwardPass, Images, Rows
from rela.stages.embed.wanted import Vectors, Wanted
from rela.stages.priors.identify import identify
from rela.stages.settings import DenseSettings, EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import (
    REPRESENTATIONS_FILE,
    Representations,
    describe,
)
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


def embed(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    settings: EmbedSettings | None = None,
    split: str = "train",
    shard: tuple[int, int] = (0, 1),
    say: Say = print,
    beside: Sequence[Wanted] = (),
) -> EmbedResult:
    """Embed every image of one split with the prior; as `embed_wanted`."""
    settings = settings or EmbedSettings()
    check_options(settings)
    wanted = wanted_of(workspace, dataset, request, settings, split)
    return embed_wanted(wanted, shard, say, beside)


def wanted_of(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    settings: EmbedSettings,
    split: str = "train",
    dense: DenseSettings | None = None,
    may_build: bool = True,
) -> Wanted:
    """What `embed` makes, or maps with `dense`; raises as `identify`."""
    prior = identify(workspace, request, may_build)
    kind = Maps(workspace, prior, settings, dense) if dense else Vectors(workspace, prior, settings)
    return Wanted(kind, dataset, split)


def find_representations(
    workspace: Workspace,
    dataset: DataSet,
    request: PriorRequest,
    settings: EmbedSettings,
    split: str = "train",
    dense: DenseSettings | None = None,
) -> Representations | None:
    """What `embed_wanted` would reuse, if it exists; builds and writes nothing."""
    try:
        return wanted_of(workspace, dataset, request, settings, split, dense, False).find()
    except ChoiceError:
        return None


def embed_wanted(
    wanted: Wanted, shard: tuple[int, int], say: Say, beside: Sequence[Wanted] = ()
) -> EmbedResult:
    """Make these representations of every image of a split; existing ones are reused.

    `beside`: others of the same images by the same prior, whose missing parts are computed in the same
    forward pass. `shard` (i, n) computes every n-th part from i on; the process that finds all parts finished
    joins them. An interrupted call keeps its finished parts for the next one. Raises DataError naming the
    images for which the prior returns NaN or Inf.
    """
    start, workspace, dataset = Spent.now(), wanted.kind.workspace, wanted.dataset
    parts_directory = workspace.parts_dir(wanted.key)
    if (result := existing(wanted, parts_directory, start)) is not None:
        return result
    from rela.representations.matrix_file import ROWS_PER_PART

    num_images = dataset.num_images(wanted.split)
    num_parts = -(-num_images // ROWS_PER_PART)
    every = [wanted, *(each for each in beside if each.find() is None)]
    stores = [PartStore(workspace.parts_dir(each.key), num_parts) for each in every]
    store = stores[0]
    if store.missing(*shard):
        wanted.kind.check_layer()
    for each, its_store in zip(every, stores, strict=True):
        if its_store.missing(*shard):  # else it was checked before
            each.kind.check_size(num_images, its_store, say)

    def make(held: ExitStack) -> tuple[int, Spent]:
        held.enter_context(in_use(dataset.path))
        todo = store.missing(*shard)
        if not todo:  # they were computed beside others
            return 0, Spent()
        filled = []
        for each, its_store in zip(every, stores, strict=True):
            if begun_with(its_store) in (None, begun_with(store)):
                held.enter_context(its_store.in_use())
                _describe(each, its_store)
                filled.append(Filled(each.kind, its_store, say))
        _say_what(every, say)
        mine = len(range(shard[0], store.num_parts, shard[1]))
        if len(todo) < mine:
            of_what = " of the maps" if wanted.kind.grid else ""
            say(f"resuming after {mine - len(todo)} of {mine} parts{of_what}")
        return _make_parts(wanted, filled, todo, say)

    return in_parts(wanted, store, start, make, lambda spent: _seal(wanted, store, spent))


def _say_what(every: Sequence[Wanted], say: Say) -> None:
    """The prior, its layers and what it sees; representations where that is the only difference."""
    wanted = every[0]
    prior, identity = wanted.kind.prior, wanted.kind.prior.identity
    if prior.note:
        say(prior.note)
    what = "prior" if prior.run is None else "run"
    of_val = " (val)" if wanted.split == "val" else ""
    name, layers = _name_and_layers([each.kind for each in every])
    say(f"{what} {name}{of_val}, {layers}, sees {identity.preprocessing.words()}")
    for other in wanted.kind.workspace.representations_and_maps(wanted.images_sha256):
        if (
            bool(other.content.map) == bool(wanted.kind.grid)
            and isinstance(other.prior, PriorIdentity)
            and _differs_in_preprocessing(other.prior, identity)
        ):
            say(f"not reused: {other.name}, where it saw {other.prior.preprocessing.words()}")


def _name_and_layers(kinds: Sequence[Vectors]) -> tuple[str, str]:
    """Of the prior without the layer, if there are several; of all layers, and what is kept of them."""
    layers = list(dict.fromkeys(each.prior.identity.layer for each in kinds))
    name = kinds[0].prior.identity.name
    if len(layers) > 1:
        name = "".join(name.rsplit(f"@{layers[0]}", 1))  # not in the name of a weights file
    words = f"layer{'s' if len(layers) > 1 else ''} {' and '.join(layers)}"
    grids = list(dict.fromkeys(each.grid.replace("x", "×") for each in kinds if each.grid))
    if grids:
        of_vectors = "" if all(each.grid for each in kinds) else "as vectors and "
        words += f" {of_vectors}in {' and '.join(grids)} positions"
    return name, words


def _differs_in_preprocessing(one: PriorIdentity, other: PriorIdentity) -> bool:
    """Whether they are equal but for what they see of an image, at the same input size or not."""
    return one.preprocessing != other.preprocessing and (
        (one.arch, one.weights_sha256, one.layer) == (other.arch, other.weights_sha256, other.layer)
    )


def _describe(wanted: Wanted, store: PartStore) -> None:
    what = "maps" if wanted.kind.grid else "representations"
    name, split = wanted.dataset.name, wanted.split
    by = f"{what} of {name} ({split}) by {wanted.kind.prior.identity.name}"
    describe(store, by, "embed", wanted.dataset.num_images(split))


def _make_parts(
    wanted: Wanted, filled: Sequence[Filled], todo: list[int], say: Say
) -> tuple[int, Spent]:
    """Make the parts `todo` of the first, and the same parts of the others in the same forward passes.

    Returns the number of images that were embedded, and what the parts cost here. Waits for parts that other
    processes make. A row does not depend on other rows, so the bytes of a part do not depend on who makes
    which, nor on what is taken from elsewhere.
    """
    import numpy as np

    from rela.data.crops import CropPlan
    from rela.representations.matrix_file import part_rows

    dataset, split, crops = wanted.dataset, wanted.split, wanted.kind.settings.crops
    beton = dataset.open(split)
    drawn = CropPlan(crops).draw(beton) if crops else None
    images = Images(beton, wanted.image_digests, drawn, lambda: dataset.index(split))
    rows_todo = np.concatenate([part_rows(part, len(beton)) for part in todo])
    count, all_spent, store = 0, Spent(), filled[0].store

    def say_waiting(count: int) -> None:
        say(f"waiting for {count} parts that other processes work on")

    with ExitStack() as held:
        rows = Rows(ForwardPass(filled, len(beton), say), images, rows_todo, held)
        for words in rows.words():
            say(words)
        num_there = len(beton) - rows.num_to_embed(rows_todo)
        bar = progress_bar(len(beton), f"embed {split}", "img", initial=num_there)
        held.enter_context(bar)
        shared = held.enter_context(SharedParts(store, todo, say_waiting))
        for claimed in shared.rounds():
            begun = list[int]()

            def rows_of_claimed(claimed: Iterator[int], begun: list[int]) -> Iterator[Any]:
                for part in claimed:
                    begun.append(part)
                    yield part_rows(part, len(beton))

            start = Spent.now()
            for num_embedded, found in rows.parts(rows_of_claimed(claimed, begun), bar.update):
                part, spent = begun.pop(0), Spent.now() - start
                stored = [(v.tobytes(), spent / len(found) + known) for v, known in found]
                for its, content in zip(filled[1:], stored[1:], strict=True):
                    if its.store.read(part) is None:
                        its.store.write(part, *content)
                shared.write(part, *stored[0])
                count, all_spent, start = count + num_embedded, all_spent + spent, Spent.now()
    return count, all_spent


def row_order(num_crops: int) -> str:
    """Which image a row belongs to."""
    if num_crops:
        return "row i·K + k belongs to crop k of the sample whose field `index` is i"
    return "row i belongs to the sample whose field `index` is i"


def attributes_of(kind: Vectors, dataset: DataSet, split: str) -> dict[str, Any]:
    """What a file of features says of itself."""
    identity, num_crops = kind.prior.identity, kind.settings.crops
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


def manifest_of(
    wanted: Wanted, store: PartStore, dtype: str, shape: Sequence[int], spent: Spent, **content: Any
) -> Manifest:
    """What is recorded of representations of this shape, computed in the parts of `store`."""
    prior, settings = wanted.kind.prior, wanted.kind.settings
    engine, arithmetic = recorded_engine(store), recorded_arithmetic(store)
    return Manifest(
        kind="representations",
        fingerprint=wanted.key,
        inputs={"images": wanted.images_sha256, "prior": prior.identity.weights_sha256},
        parameters={
            "dtype": dtype,
            "layer": prior.identity.layer,
            "crops": settings.crops,
            "precision": settings.precision,
        },
        content={
            "shape": list(shape),
            "crops": settings.crops,
            "prior": prior.identity.as_dict(),
            "run": prior.run,
            "dataset": wanted.dataset.name,
            "split": wanted.split,
            **content,
        },
        provenance=provenance(spent, wanted.command)
        | {"batch_size": settings.batch_size, "device": settings.device}
        | said_of_code(prior.identity.arch)
        | ({"arithmetic": arithmetic} if arithmetic else {})
        | ({"engine": asdict(engine)} if engine is not None else {}),
    )


def _seal(wanted: Wanted, store: PartStore, overhead: Spent) -> Representations:
    """Join all parts in one HDF5 file and publish it, or take that of a faster process.

    The recorded cost is that of every part, interrupted calls and other shards included, plus
    this call's start and joining.
    """
    from rela.data.crops import CropPlan
    from rela.representations.matrix_file import write_matrix

    dataset, split, kind = wanted.dataset, wanted.split, wanted.kind
    recorded = kind.recorded_format(store.directory)
    if recorded is None:
        raise FileNotFoundError(store.directory / FORMAT_FILE)
    format_, num_crops = kind.read_format(recorded), kind.settings.crops
    crops = CropPlan(num_crops).draw(dataset.open(split)) if num_crops else None
    shape = dataset.num_images(split) * (num_crops or 1), format_.columns
    attributes = attributes_of(kind, dataset, split) | format_.attributes
    start, spent = Spent.now(), store.spent() + overhead

    def fill(directory: Path) -> Manifest:
        rows = _joined_rows(store, format_.dtype, format_.columns)
        write_matrix(
            directory / REPRESENTATIONS_FILE, rows, shape, format_.dtype, attributes, crops,
            wanted.image_digests,
        )  # fmt: skip
        if recorded:
            (directory / FORMAT_FILE).write_bytes(recorded)
        all_spent, map_shape = spent + (Spent.now() - start), list(format_.shape)
        more = {"map": map_shape} if map_shape else {}
        return manifest_of(wanted, store, format_.dtype, shape, all_spent, **more)

    return cached(wanted.destination, Representations, wanted.find, fill)[0]


def _joined_rows(store: PartStore, dtype: str, width: int) -> "Iterator[NDArray[Any]]":
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
