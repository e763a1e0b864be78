"""The parts of embedded shards → a data set of names, and representations with a file for each shard.

Nothing here grows with the number of images but the files: parts are read one after another.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rela.data.beton.encoded import Encoded, Listing, features_of, unpack
from rela.data.ffcv_format import MODE_JPEG
from rela.errors import DataError
from rela.pipeline.artifact import cached
from rela.pipeline.fingerprint import OrderedDigest, fingerprint
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.sources import default_name
from rela.sources.labels import merge_classes
from rela.sources.remote import Shards
from rela.sources.source import ImageSource, Sample
from rela.stages.embed.embed import attributes_of, manifest_of
from rela.stages.embed.wanted import SHOWN_NAME, Vectors, Wanted, digests_of
from rela.stages.left_out import LEFT_OUT_FILE, left_out_csv
from rela.stages.same_images import deciding
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.dataset import DataSet, index_lines
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import free_name, slug

_Row = tuple[Sample, Encoded]


@dataclass(frozen=True)
class Joining:
    """What the shards of a store become by one prior; `shards_key` tells these shards from others."""

    kind: Vectors
    remote: Shards
    shards_key: str

    def dataset(self) -> DataSet | None:
        """The names of the images, if these shards were embedded before, by any prior."""
        names = (d for d in self.kind.workspace.datasets() if not d.has_images)
        return next((d for d in names if d.facts.provenance.shards == self.shards_key), None)

    @cached_property
    def name(self) -> str:
        """That of the data set."""
        existing = self.dataset()
        wanted = f"{slug(default_name(self.remote.url))}-shards"
        is_taken = self.kind.workspace.has_dataset
        if existing:
            return existing.name
        return free_name(wanted, is_taken) if is_taken(wanted) else wanted

    @property
    def names(self) -> Path:
        """The CSV with the name of each image."""
        return self.kind.workspace.datasets_dir / self.name / "train.csv"

    def find(self) -> Representations | None:
        """The representations, if they exist."""
        dataset = self.dataset()
        return None if dataset is None else self.wanted(dataset).find()

    def wanted(self, dataset: DataSet) -> Wanted:
        """What the representations are called, and by which fingerprint."""
        return Wanted(self.kind, dataset, "train")


def seal_shards(join: Joining, store: PartStore, overhead: Spent) -> Representations:
    """Publish the names and the representations, or take those of a faster process."""
    seal_start = Spent.now()
    parts = _Parts(join, store)
    datasets = join.kind.workspace.datasets_dir
    dataset, _ = cached(datasets / join.name, DataSet, join.dataset, parts.write_names)
    wanted, identity = join.wanted(dataset), join.kind.prior.identity
    attributes = attributes_of(join.kind, dataset, "train")
    spent = store.spent() + overhead

    def fill(directory: Path) -> Manifest:
        shards = parts.write_features(directory, attributes)
        shape = sum(shard["num_rows"] for shard in shards), identity.feature_dim
        all_spent = spent + (Spent.now() - seal_start)
        return manifest_of(wanted, store, join.kind.settings.dtype, shape, all_spent, shards=shards)

    return cached(wanted.destination, Representations, wanted.find, fill)[0]


class _Parts:
    """The finished parts, in the order of the shards."""

    def __init__(self, join: Joining, store: PartStore) -> None:
        self.join, self.store = join, store
        class_lists = (listing.class_names for listing, samples in self._unpacked() if samples)
        self.class_names, self.number = merge_classes(join.remote.url, class_lists)

    def _unpacked(self) -> Iterator[tuple[Listing, list[Sample]]]:
        return (unpack(*self.store.content_at(part)) for part in range(self.store.num_parts))

    def _rows(self) -> Iterator[tuple[list[_Row], list[_Row]]]:
        """Of every part, (all images, those that are not bad), with class numbers of all shards."""
        for listing, samples in self._unpacked():
            rows: list[_Row] = []
            for sample in samples:
                assert isinstance(sample.place, Encoded)
                named = sample.label >= 0
                label = self.number[listing.class_names[sample.label]] if named else -1
                rows.append((Sample(sample.path, label), sample.place))
            yield rows, [row for row in rows if row[1].row.origin is not None]

    def write_names(self, directory: Path) -> Manifest:
        """Write the CSV of all images, and that of the bad ones; the manifest of a data set."""
        images, labels, sources = OrderedDigest(), OrderedDigest(), OrderedDigest()
        classes, sides, modes = Counter[int](), Counter[int](), Counter[int]()
        bad: list[tuple[str, str]] = []

        def rows() -> Iterator[tuple[int, int, str, str, str]]:
            index = 0
            for every, good in self._rows():
                for sample, place in every:
                    known = f"train\0{sample.path}\0{sample.label}\0{place.sha256}"
                    sources.add(
                        hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()
                    )
                    if place.row.origin is None:
                        bad.append((sample.path, place.row.reason))
                for sample, place in good:
                    row = place.row
                    images.add(row.stored_sha256)
                    labels.add(str(sample.label))
                    classes[sample.label] += 1
                    sides[min(row.height, row.width)] += 1
                    modes[row.mode] += 1
                    yield index, sample.label, sample.path, row.source_sha256, row.stored_sha256
                    index += 1

        with open(directory / "train.csv", "wb") as file:
            file.writelines(index_lines(rows()))
        num_images = sum(modes.values())
        if not num_images:
            raise DataError(
                f"{self.join.remote.url}: all {len(bad):,} images are bad, such as {bad[0]}"
            )
        nothing = ImageSource(Path(), [], {})
        if bad:
            (directory / LEFT_OUT_FILE).write_bytes(left_out_csv(nothing, bad))
        split = {
            "num_images": num_images,
            "images_per_class": [classes[label] for label in sorted(classes)],
            "num_jpeg": modes[MODE_JPEG],
            "num_raw": num_images - modes[MODE_JPEG],
            "median_shorter_side_pixels": _median(sides),
            "images_sha256": images.hexdigest(),
            "labels_sha256": labels.hexdigest(),
        }
        meaning = {
            "stage": "names of shards",
            "class_names": self.class_names,
            "splits": {"train": [split["images_sha256"], split["labels_sha256"]]},
        }
        url = self.join.remote.url
        return Manifest(
            kind="dataset",
            fingerprint=fingerprint(meaning),
            parameters=deciding(ConvertSettings(), nothing) | {"images": "in their shards"},
            content={
                "class_names": self.class_names,
                "labelled": bool(self.class_names),
                "splits": {"train": split},
                "bits": None,
                "float_bits": None,
                "bad_images": [list(entry) for entry in bad],
                "sources_sha256": sources.hexdigest(),
            },
            provenance=provenance(Spent())
            | {"source": url, "shards": self.join.shards_key, "asked": {"source": url}},
        )

    def write_features(self, directory: Path, attributes: dict[str, Any]) -> list[dict[str, Any]]:
        """Write a matrix and a CSV of names for every shard; what the manifest says of each."""
        from rela.representations.matrix_file import ROWS_PER_PART, write_matrix

        identity, dtype = self.join.kind.prior.identity, self.join.kind.settings.dtype
        found = []
        for number, ((_, good), shard) in enumerate(
            zip(self._rows(), self.join.remote.shards, strict=True)
        ):
            name = f"{number:05d}-{slug(Path(shard.name).stem)[:SHOWN_NAME]}"
            values = features_of([place for _, place in good], dtype, identity.feature_dim)
            if good:
                parts = (
                    values[i : i + ROWS_PER_PART] for i in range(0, len(values), ROWS_PER_PART)
                )
                path = directory / f"{name}.h5"
                about = attributes | {"shard": shard.name}
                images = digests_of([place.row.stored_sha256 for _, place in good])
                write_matrix(path, parts, values.shape, dtype, about, images=images)
            with open(directory / f"{name}.csv", "wb") as file:
                file.writelines(index_lines(_named(good)))
            found.append({"name": shard.name, "file": f"{name}.h5", "num_rows": len(good)})
        return found


def _named(rows: Sequence[_Row]) -> Iterator[tuple[int, int, str, str, str]]:
    for index, (sample, place) in enumerate(rows):
        row = place.row
        yield index, sample.label, sample.path, row.source_sha256, row.stored_sha256


def _median(counts: Counter[int]) -> int:
    """The middle of the counted numbers, the larger one of two."""
    middle, seen = sum(counts.values()) // 2, 0
    for number in sorted(counts):
        seen += counts[number]
        if seen > middle:
            break
    return number
