"""Shards in a store → a source of their images, which are encoded as the shards pass by."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from rela.data.beton.encoded import Listing, pack, unpack
from rela.data.beton.encoding import Encoding
from rela.data.beton.worker_pool import WorkerPool
from rela.data.beton.writer import encode_all
from rela.pipeline import Say
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.sources import read_shard
from rela.sources.labels import Label, Labelled, check_classes, choose_splits, find_classes
from rela.sources.remote import Shard, Shards
from rela.sources.source import ImageSource, SourceOptions
from rela.sources.splits.names import named_split
from rela.stages.same_images import STAGE_VERSION
from rela.stages.settings import ConvertSettings
from rela.stages.shards.parts import fill, listing_key
from rela.stages.workspace.representations import describe
from rela.stages.workspace.workspace import Workspace


def options_of(settings: ConvertSettings) -> SourceOptions:
    """The choices about a source among the settings."""
    return SourceOptions(**{f.name: getattr(settings, f.name) for f in fields(SourceOptions)})


class _Found:
    """The shards of each split that a data set is made of, in its order."""

    def __init__(self, remote: Shards, settings: ConvertSettings) -> None:
        self.remote, self.settings = remote, settings
        self.by_split: dict[str, list[Shard]] = {}
        for shard in remote.shards:
            self.by_split.setdefault(named_split(Path(shard.name)), []).append(shard)
        self.chosen, self.ignored = choose_splits(remote.url, self.by_split, settings.split)
        self.shards = [shard for split in self.chosen.values() for shard in self.by_split[split]]

    def store(self, workspace: Workspace, encoding: Encoding) -> PartStore:
        """The parts that they become, one for each."""
        settings = self.settings
        deciding = ConvertSettings(split=settings.split, image_field=settings.image_field)
        meaning = {
            "stage": "encoded shards",
            "version": STAGE_VERSION,
            "shards": listing_key(replace(self.remote, shards=self.shards), deciding),
            "options": str(options_of(settings)),
            "encoding": str(encoding),
            "seed": settings.seed if settings.write_mode == "proportion" else None,
        }
        return PartStore(workspace.parts_dir(fingerprint(meaning)), len(self.shards))


def clear_gathered(
    workspace: Workspace, remote: Shards, settings: ConvertSettings, encoding: Encoding
) -> None:
    """Remove the parts that are left if a job ends between its data set and their removal."""
    store = _Found(remote, settings).store(workspace, encoding)
    shutil.rmtree(store.directory, ignore_errors=True)


@contextmanager
def gathered(
    workspace: Workspace,
    remote: Shards,
    name: str,
    settings: ConvertSettings,
    encoding: Encoding,
    workers: int,
    say: Say,
) -> Iterator[tuple[ImageSource, Spent]]:
    """All images of the shards as a source, and what was spent on them before this call.

    The bytes of images are kept encoded, as parts, which are removed if the body succeeds. Raises as
    `open_source`.
    """
    found = _Found(remote, settings)
    store, options = found.store(workspace, encoding), options_of(settings)

    def compute(shard: Shard, file: Path) -> tuple[bytearray, Spent]:
        found = read_shard(file, shard.name, remote.kind, options, remote.url_of(shard))
        encoded = encode_all(found.root, found.splits["train"], encoding, pool, settings.seed)
        listing = Listing(found.class_names, found.stray_files, found.notes, found.num_skipped)
        return pack(listing, encoded), Spent()

    with store.in_use(), WorkerPool(workers) as pool:
        describe(store, f"shards of data set {name}", "convert")
        here = fill(store, remote, found.shards, (0, 1), lambda shard, file: file, compute, say)
        source = _joined(
            store, remote, {s: len(found.by_split[n]) for s, n in found.chosen.items()}
        )
        source = replace(source, val_name=found.chosen.get("val", ""), ignored_splits=found.ignored)
        yield source, store.spent() - here
    shutil.rmtree(store.directory, ignore_errors=True)


def _joined(store: PartStore, remote: Shards, num_shards: dict[str, int]) -> ImageSource:
    """The source that the parts hold together, of so many shards for each split, in this order."""
    split_of = [split for split, count in num_shards.items() for _ in range(count)]
    found = [unpack(*store.content_at(part)) for part in range(store.num_parts)]
    listings = [listing for listing, _ in found]
    alike = all(listing.class_names == listings[0].class_names for listing in listings)
    splits: dict[str, list[Labelled]] = {split: [] for split in num_shards}
    for split, (listing, samples) in zip(split_of, found, strict=True):
        names: dict[int, Label] = dict(enumerate(listing.class_names))
        splits[split] += (
            Labelled(s.path, s.label if alike else names.get(s.label), s.place) for s in samples
        )
    if alike:  # keeps the order of a table's own list of classes
        class_names, samples_of = check_classes(remote.url, splits, listings[0].class_names)
    else:
        class_names, samples_of = find_classes(remote.url, splits)
    num_skipped: dict[str, int] = {}
    for listing in listings:
        for kind, count in listing.num_skipped.items():
            num_skipped[kind] = num_skipped.get(kind, 0) + count
    return ImageSource(
        Path(remote.root),
        class_names,
        samples_of,
        stray_files=[path for listing in listings for path in listing.stray],
        notes=list(dict.fromkeys(note for listing in listings for note in listing.notes)),
        num_skipped=num_skipped,
        url=remote.url,
    )
