"""Images of a data set that are nearly the same, and those that are in both train and val."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.data.beton.contact_sheet import MAX_IMAGES, Row
from rela.errors import one_line
from rela.options import part_of
from rela.pipeline import Say
from rela.result import Result, Table
from rela.stages import requests
from rela.stages.display import format_table, next_command
from rela.stages.neighbors.picture import picture_path, write_picture
from rela.stages.neighbors.searched import MEASURE, Image, Searched, bar_of_blocks, searched
from rela.stages.settings import NeighborsSettings
from rela.stages.workspace.workspace import Workspace

_THRESHOLD = 0.95


@dataclass(frozen=True)
class Duplicate(Image):
    """An image of a group; `similarity` to the image that is most similar to it, in [-1, 1]."""

    similarity: float


@dataclass(frozen=True)
class Group:
    """Images that are nearly the same, in the order of the data set.

    `similarity` is the least of the images'; `leakage`: some are in train, some in val; `class_names`: those
    that occur.
    """

    similarity: float
    leakage: bool
    class_names: list[str]
    images: list[Duplicate]

    @property
    def examples(self) -> list[Duplicate]:
        """At most 8 images: first the first of each split, so that a leak is seen."""
        firsts = {image.split: image for image in reversed(self.images)}.values()
        others = [image for image in self.images if image not in firsts]
        return sorted([*firsts, *others][:MAX_IMAGES], key=self.images.index)


@dataclass(frozen=True, repr=False)
class Duplicates(Result):
    """Every group of near-duplicates: those in both train and val first, then the most similar ones.

    `shown` of them are in the table of the command and in the picture.
    """

    dataset: str
    splits: list[str]
    prior: str
    source: str | None
    threshold: float
    num_images: int
    num_val_leaked: int
    groups: list[Group]
    num_shown: int
    picture: Path | None

    def shown(self) -> dict[str, Any]:
        """What was compared, and how much was found."""
        return {
            "data set": self.dataset,
            "splits": ", ".join(self.splits),
            "prior": self.prior,
            "threshold": self.threshold,
            "groups": len(self.groups),
            "leakage": sum(group.leakage for group in self.groups),
            "picture": self.picture,
        }

    def tables(self) -> dict[str, Table]:
        """A line for each image of the shown groups."""
        rows: list[list[Any]] = []
        for number, group in enumerate(self.groups[: self.num_shown], start=1):
            shown = group.examples
            rows += [[number, f"{i.similarity:.4f}", i.split, i.class_name, i.path] for i in shown]
            if more := len(group.images) - len(shown):
                rows.append([number, "", "", "", f"and {more:,} more"])
        return {"near-duplicates": (("group", "similarity", "split", "class", "path"), rows)}


def duplicates(workspace: Workspace, request: requests.Neighbors, say: Say = print) -> Duplicates:
    """Find groups of images whose features have a cosine of at least a threshold, of all pairs.

    The mean of the features is subtracted first, see rela.representations.neighbors.similar_groups. Writes a
    picture of the first groups, if there are any.
    """
    from rela.representations.neighbors import similar_groups

    settings = part_of(request, NeighborsSettings)
    threshold = _THRESHOLD if settings.threshold is None else settings.threshold
    with searched(workspace, request, say) as bank:
        path = picture_path(settings.output, bank.dataset.name, "duplicates")
        with bar_of_blocks() as tell:
            found = similar_groups(bank.matrices, threshold, bank.device, tell)
        groups = _groups(bank, *found, threshold)
        shown = groups[: settings.count]
        if shown:
            write_picture(path, [_row(bank, i, group) for i, group in enumerate(shown, start=1)])
    leaked = [group for group in groups if group.leakage]
    return Duplicates(
        dataset=bank.dataset.name,
        splits=list(bank.parts),
        prior=bank.prior,
        source=bank.dataset.source,
        threshold=threshold,
        num_images=bank.num_images,
        num_val_leaked=sum(image.split == "val" for group in leaked for image in group.images),
        groups=groups,
        num_shown=len(shown),
        picture=path if shown else None,
    )


def _groups(bank: Searched, names: Any, similarities: Any, threshold: float) -> list[Group]:
    """Groups of at least two rows; leaks first, then by similarity, then by row."""
    members: dict[int, list[Duplicate]] = {}
    for row in (similarities >= threshold).nonzero()[0].tolist():
        similarity = round(float(similarities[row]), 6)
        image = Duplicate(**vars(bank.image(row)), similarity=similarity)
        members.setdefault(int(names[row]), []).append(image)
    groups = [
        Group(
            similarity=min(image.similarity for image in images),
            leakage=len({image.split for image in images}) > 1,
            class_names=sorted({i.class_name for i in images if i.class_name is not None}),
            images=images,
        )
        for images in members.values()
    ]
    return sorted(groups, key=lambda group: (not group.leakage, -group.similarity))


def _row(bank: Searched, number: int, group: Group) -> Row:
    where = "LEAKAGE: in train and val" if group.leakage else f"in {group.images[0].split}"
    several = ", of several classes" if len(group.class_names) > 1 else ""
    return Row(
        f"{number}: {len(group.images):,} images, similarity {group.similarity:.3f}, {where}{several}",
        [
            (*bank.stored(image), f"{image.split} {image.class_name or ''}")
            for image in group.examples
        ],
    )


def in_words(result: Duplicates) -> str:
    """What was found, in words and as a table."""
    groups, shown = result.groups, result.groups[: result.num_shown]
    num_found = sum(len(group.images) for group in groups)
    lines = [
        f"near-duplicates in data set {result.dataset} ({', '.join(result.splits)}), by {result.prior}: "
        f"{num_found:,} of {result.num_images:,} images, in {len(groups):,} group{'s' * (len(groups) != 1)}",
        f"similarity: {MEASURE}; that of each image with the most similar other one is at least "
        f"{result.threshold:g}",
    ]
    if leaks := sum(group.leakage for group in groups):
        lines.append(
            f"leakage: {leaks:,} group{'s have' if leaks > 1 else ' has'} images of train and of val, "
            f"{result.num_val_leaked:,} of val; they make accuracies on val too high"
        )
    elif len(result.splits) > 1:
        lines.append("leakage: none; no group has images of train and of val")
    if mixed := sum(len(group.class_names) > 1 for group in groups):
        lines.append(
            f"classes: {mixed:,} group{'s have' if mixed > 1 else ' has'} images of several classes; "
            "their labels may be wrong"
        )
    if shown:
        lines += [
            f"paths are relative to {one_line(result.source or 'the folder of images')}",
            format_table(*result.tables()["near-duplicates"]),
            f"picture of {'these' if len(shown) > 1 else 'this'}: {result.picture}",
        ]
    if len(groups) > len(shown):
        lines.append(
            f"{len(groups) - len(shown):,} more groups: --count shows more, --json lists all"
        )
    lines.append(
        next_command(
            "neighbors", "--outliers", "--dataset", result.dataset, "--prior", result.prior
        )
    )
    return "\n".join(lines)
