"""One bit flipped anywhere in what is kept: found before anything is made of it."""

import mmap
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.faults import Tally
from benchmarks.faults.own_networks import make_known
from benchmarks.faults.stages import OUT, all_stages
from rela.errors import RelaError
from rela.models.backbones import build_backbone
from rela.pipeline.artifact import find_artifacts, open_artifact
from rela.pipeline.errors import PipelineError
from rela.pipeline.manifest import MANIFEST_NAME
from rela.pipeline.parts import PartStore
from rela.priors import PriorIdentity, PriorRequest
from rela.priors.earlier_run import BACKBONE_FILE
from rela.representations.feature_files import FEATURES_FILE, IMAGES_FILE
from rela.stages.embed.format import FORMAT_FILE
from rela.stages.embed.reuse import Donor, KnownRows
from rela.stages.embed.wanted import Vectors
from rela.stages.priors.find import with_names
from rela.stages.priors.identify import KnownPrior, identify
from rela.stages.settings import EmbedSettings
from rela.stages.train.maps import open_map_targets
from rela.stages.train.targets import TARGETS_FILE
from rela.stages.train.warm_start import begun_with
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace
from rela.training.checkpoints import newest_checkpoint
from rela.training.initial_weights import load_initial, write_initial
from rela.training.run_directory import INITIAL_FILE
from rela.training.settings import TrainSettings

_TRIALS = 400
_PART_BYTES = 200_000


Read = Callable[[], object]


def integrity(trials: int, scratch: Path) -> Iterator[Tally]:
    """Every kind of file that is kept, with what reads it: an error, or something false, if it is damaged."""
    stages = all_stages(scratch)
    make_known(scratch / "packages")
    kinds = {
        **_of_a_run(Workspace(stages["train from a run"].undisturbed[0])),
        **_of_shards(Workspace(stages["embed shards"].undisturbed[0])),
        **_of_a_module(Workspace(stages["train a module"].undisturbed[0])),
        **_of_exports(stages["export npy"].undisturbed[0] / OUT / "index"),
        **_of_parts(scratch),
    }
    for what, (path, read) in kinds.items():
        assert _is_read(read), f"{what}: refused without any damage"
        tally = Tally(f"{what}: one bit flipped")
        draw, size = random.Random(tally.what), path.stat().st_size
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            for _ in range(trials or _TRIALS):
                position, bit = draw.randrange(size), 1 << draw.randrange(8)
                content[position] ^= bit
                problem = f"bit {bit} of byte {position:,} of {size:,}" if _is_read(read) else ""
                tally.count(problem)
                content[position] ^= bit
        yield tally


def _of_a_run(space: Workspace) -> dict[str, tuple[Path, Read]]:
    """A data set, what a prior made of it, and a run."""
    dataset, run = space.dataset("digits"), space.run("run")
    targets = find_artifacts(space.targets_dir)[0]
    representations = next(
        each for each in space.representations(dataset.images_sha256()) if each.content.run is None
    )
    (maps,) = space.maps(dataset.images_sha256())
    newest = newest_checkpoint(run.path / "checkpoints")
    assert newest is not None

    def finds_newest() -> bool:
        found = newest_checkpoint(run.path / "checkpoints")
        return found is not None and found[0] == newest[0]

    def begins_with_run() -> object:
        settings = TrainSettings(init=run.name)
        start = begun_with(space, dataset, settings)[1]
        return start is not None and start.backbone(run.model, run.image_size)

    as_prior = partial(identify, space, PriorRequest(f"run:{run.name}"))
    return {
        "representations": (representations.file, representations.matrix),
        "representations, for the rows of another data set": (
            representations.file, lambda: _rows_taken_from(representations),
        ),
        "names and labels, beside representations": (
            dataset.index_path("train"), lambda: with_names(dataset, "train", representations),
        ),
        "maps": (maps.file, lambda: open_map_targets(maps, dataset.num_images("train"))),
        "projection of maps": (
            maps.path / FORMAT_FILE, lambda: open_map_targets(maps, dataset.num_images("train")),
        ),
        "targets": (targets.path / TARGETS_FILE, lambda: targets.sound_file(TARGETS_FILE)),
        "manifest": (targets.path / MANIFEST_NAME, lambda: open_artifact(targets.path)),
        "checkpoint": (newest[0], finds_newest),
        "record of a checkpoint": (newest[0].with_suffix(".json"), finds_newest),
        "backbone of a run, as a prior": (run.path / BACKBONE_FILE, lambda: as_prior().load()),
        "backbone of a run, that another one begins with": (
            run.path / BACKBONE_FILE, begins_with_run,
        ),
        "beton, by `rela cache verify`": (
            dataset.path / "train.beton", lambda: dataset.verify() is None,
        ),
    }  # fmt: skip


def _of_shards(space: Workspace) -> dict[str, tuple[Path, Read]]:
    """Representations with a file for each shard, and a data set of names alone."""
    dataset = space.dataset()
    (representations,) = space.representations(dataset.images_sha256())
    last = representations.path / representations.content.shards[-1].file
    return {
        "representations of a shard": (last, representations.matrix),
        "names of the images in shards": (
            dataset.index_path("train"), lambda: with_names(dataset, "train", representations),
        ),
    }  # fmt: skip


def _of_a_module(space: Workspace) -> dict[str, tuple[Path, Read]]:
    """A run of a network of own code."""
    run = space.run()
    as_prior = partial(identify, space, PriorRequest(f"run:{run.name}"))
    return {"backbone of a module": (run.path / BACKBONE_FILE, lambda: as_prior().load())}


def _of_exports(folder: Path) -> dict[str, tuple[Path, Read]]:
    """An exported folder, by the digests in its manifest."""

    def verify() -> bool:
        found = open_artifact(folder)
        return found is not None and found.verify() is None

    return {
        "exported features": (folder / FEATURES_FILE, verify),
        "exported names": (folder / IMAGES_FILE, verify),
    }


def _of_parts(scratch: Path) -> dict[str, tuple[Path, Read]]:
    """Work in progress."""
    store = PartStore(scratch / "parts", 1)
    store.write(0, random.Random(0).randbytes(_PART_BYTES))
    start, directory = build_backbone("timm:test_resnet", 32), scratch / "begun"
    directory.mkdir(exist_ok=True)
    write_initial(directory, start)

    def load() -> bool:
        load_initial(start, directory)
        return True

    return {
        "part": (store.directory / "part-000000", lambda: store.read(0)),
        "weights that a run begins with": (directory / INITIAL_FILE, load),
    }


def _is_read(read: Callable[[], object]) -> bool:
    try:
        return bool(read())
    except (PipelineError, RelaError):
        return False


def _rows_taken_from(representations: Representations) -> bool:
    """Whether an embedding of the same images by the same prior would take its rows."""
    identity, images = representations.prior, representations.matrix(verify=False).images
    assert isinstance(identity, PriorIdentity) and images is not None
    space = Workspace.around(representations)
    kind = Vectors(space, KnownPrior(identity, lambda: None), EmbedSettings())
    donor = Donor(representations, kind)
    assert donor.arithmetic is not None
    known = KnownRows(np.asarray(images), None, b"")
    with known.take_from([donor], donor.arithmetic, lambda line: None):
        return bool(known.donors)
