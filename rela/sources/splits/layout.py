"""A tree of folders → train and val with their classes, from names alone.

Accepted, where `.` is the given folder, or the one folder in it that holds everything:

- `./CLASS/**/image`: one folder per class;
- `./train/CLASS/**` beside `./val/CLASS/**`: splits, of any usual name (`Training`, `dev`, `test`, ...);
- `./train/CLASS/**` beside `./val/image`, with a list of labels (see label_lists.py) or without labels;
- images with `metadata.csv` or `metadata.jsonl` beside them, as Hugging Face's ImageFolder;
- `./image`: images without labels, also in `./images/` beside `./labels/`.

What names cannot tell apart is refused with its readings, and the command for each.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rela.errors import ChoiceError, DataError, one_line
from rela.sources.labels import VAL_NAMES, Label, Labelled, find_classes, quoted_classes, split_of
from rela.sources.source import ImageSource, Place, Sample, SourceOptions
from rela.sources.splits.label_lists import listed_labels
from rela.sources.splits.metadata import METADATA_NAMES, labels_in_metadata
from rela.sources.splits.tree import Folder

CLASSES, SPLITS = "classes", "splits"  # of --layout
_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "jpegs"}
_ANNOTATIONS = {
    "labels",
    "label",
    "annotations",
    "annotation",
    "masks",
    "mask",
    "gt",
    "groundtruth",
}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
Finder = Callable[[str], Place | None]


def read_layout(
    root: Folder, where: Path, options: SourceOptions, place: Finder = lambda path: None
) -> ImageSource:
    """The images below `root`, which is at `where`; `place` finds those that are not files of their own.

    Classes and images are in the order of their names. Raises DataError if there is no image or if val
    has a class that train lacks, ChoiceError if the names have several readings.
    """
    return _Reader(root, where, options).source(place)


@dataclass
class _Part:
    """One split: `folder` is named after it, `images` holds its class folders or images.

    - `classes`: paths by class folder; `flat`: paths of images without class folders;
    - `labels`: of each path, from metadata or a list; "" for an image that these leave out.
    """

    folder: Folder
    images: Folder
    classes: dict[str, list[str]]
    flat: list[str]
    labels: dict[str, Label] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        return bool(self.classes or self.labels)


class _Reader:
    """Reads one tree; `notes` are said to the user."""

    def __init__(self, root: Folder, where: Path, options: SourceOptions) -> None:
        self.root, self.where, self.options = root, where, options
        self.is_on_disk = root.tree.is_on_disk
        self.notes: list[str] = []
        self.used: set[str] = set()  # lists and metadata that were read

    def source(self, place: Finder) -> ImageSource:
        top = self._inside(self.root)
        train, others, beside = self._splits(top)
        parts = {
            "train": self._part(train, top, [f for f in top.folders if f in (*others, *beside)])
        }
        if not (parts["train"].classes or parts["train"].flat or parts["train"].labels):
            raise DataError(
                f"{self._shown(train)} holds no images; expected files such as CLASS/image.jpg, in any "
                f"format that Pillow opens{self._archives(train)}"
            )
        val = self._choose_val(parts["train"], [self._part(folder, top, []) for folder in others])
        if val is not None:
            parts["val"] = val
        for folder in beside:
            self._say_left_out(folder, "it is not a split", folder.images())
        inner = {f.name for c in parts["train"].images.holding for f in c.holding}
        if parts["train"].classes and inner and all(map(split_of, inner)):
            self.notes.append(
                f"{', '.join(sorted(map(one_line, inner)))} within the classes are read as one split"
            )
        if len(parts["train"].classes) == 1:
            (name,) = parts["train"].classes
            self.notes.append(f"all images are of one class, the folder {one_line(name)}")
        if top is not self.root:
            self.notes.insert(0, f"the images are in {self._shown(top)}")
        class_names, splits = self._numbered(parts, place)
        return ImageSource(
            root=self.where,
            class_names=class_names,
            splits=splits,
            val_name=f"{val.folder.path.rpartition('/')[2]}/" if val else "",
            stray_files=sorted(set(self._stray([*parts.values()], top))),
            empty_classes=sorted(self._empty([*parts.values()], top)),
            notes=self.notes,
            num_skipped=dict(self.root.tree.skipped),
        )

    # Which folders are splits

    def _inside(self, folder: Folder, is_split: bool = False) -> Folder:
        """The folder below with several classes or splits, if all folders between hold nothing else."""
        current = found = folder
        while not current.own_images:
            holding = current.holding
            images = [f for f in holding if f.name.lower() in _IMAGES]
            beside = [f for f in holding if f.name.lower() in _ANNOTATIONS]
            is_pair = len(images) == 1 and len(images) + len(beside) == len(holding)
            if is_pair and self.options.layout != CLASSES:
                if not (beside or current is folder or images[0].holding):
                    return found  # CLASS/images/
                for other in beside:
                    self._say_left_out(other, "it lies beside images/", other.images())
                current = found = images[0]
            elif len(holding) != 1 or not (is_split or self._is_wrapper(holding[0])):
                return current
            else:
                current = holding[0]
                if is_split and split_of(current.name):  # train/train/
                    found = current
        return found

    def _is_wrapper(self, folder: Folder) -> bool:
        """Whether it is no split, or one that holds splits itself."""
        return not split_of(folder.name) or all(split_of(f.name) for f in folder.holding)

    def _splits(self, top: Folder) -> tuple[Folder, list[Folder], list[Folder]]:
        """(train, splits that may become val, other folders with images beside them)."""
        holding = top.holding
        named = [f for f in holding if split_of(f.name)]
        others = [f for f in holding if f not in named]
        if not named or self.options.layout == CLASSES:
            return top, [], []
        trains = [f for f in named if split_of(f.name) == "train"]
        rest = [f for f in named if f not in trains]
        if not trains:  # one that holds nothing is an error, and nothing else takes its place
            trains = [f for f in top.folders if split_of(f.name) == "train"]
        if len(trains) > 1:
            raise self._ambiguous(top, "has several train splits", *map(self._only, trains))
        if trains:
            if others and self.options.layout != SPLITS:
                flat = bool(trains[0].own_images)
                if flat and not rest:
                    return top, [], []  # `train` is a class, as of vehicles
                if flat or not rest:
                    self._refuse_both_readings(top, others, named)
            return trains[0], rest, others
        if top.own_images and not others:
            return top, rest, []
        if others:
            classes = {f.name for f in others}
            if self.options.layout != SPLITS and not all(
                f.holding and {c.name for c in f.holding} <= classes for f in rest
            ):
                self._refuse_both_readings(top, others, named)
            return top, rest, []
        if len(rest) == 1:
            return rest[0], [], []
        raise self._ambiguous(
            top, f"holds {_names(rest)} and no train split", self._classes(), *map(self._only, rest)
        )

    def _refuse_both_readings(self, top: Folder, others: list[Folder], named: list[Folder]) -> None:
        what = f"holds {_names(named)} beside {_names(others)}"
        splits = f"{_names(named)} are splits" if len(named) > 1 else f"{_names(named)} is a split"
        raise self._ambiguous(
            top, what, self._classes(), f"if {splits}: {self._command('', '--layout', SPLITS)}"
        )

    def _classes(self) -> str:
        return f"if all are classes: {self._command('', '--layout', CLASSES)}"

    def _only(self, folder: Folder) -> str:
        return f"{one_line(folder.name)}/ by itself: {self._command(folder.path)}"

    def _ambiguous(self, top: Folder, what: str, *readings: str) -> ChoiceError:
        return ChoiceError(f"{self._shown(top)} {what}; {'; '.join(readings)}")

    # What a split holds

    def _part(self, folder: Folder, top: Folder, without: list[Folder]) -> _Part:
        """The images of one split; the folders `without` in it are others' images."""
        images = folder
        if folder is not top and self.options.layout != CLASSES:
            images = self._inside(folder, is_split=True)
        labels: dict[str, Label] = {}
        if self.options.layout != CLASSES:
            labels = self._from_metadata(folder, images, top)
        if labels:
            paths = [p for p in images.images() if not any(_is_below(p, f) for f in without)]
            known = {path: labels[path] for path in paths if path in labels}
            gone = {p: c for p, c in labels.items() if p not in known and _is_below(p, folder)}
            gone = {p: c for p, c in gone.items() if not any(_is_below(p, f) for f in without)}
            left_out = [path for path in paths if path not in known]
            if known and left_out:
                self._say_left_out(images, "the metadata does not list them", left_out)
            if known:
                return _Part(folder, images, {}, [], {**known, **gone})
        classes = {f.name: f.images() for f in images.holding if f not in without}
        return _Part(folder, images, classes, [images.within(name) for name in images.own_images])

    def _from_metadata(self, *folders: Folder) -> dict[str, Label]:
        labels: dict[str, Label] = {}
        for folder in dict.fromkeys((*reversed(folders), self.root)):
            found = labels_in_metadata(folder, one_line(str(self.where)), self.options)
            if found is None:
                continue
            path, of_this, columns = found
            if path not in self.used and not of_this:
                self.notes.append(
                    f"{one_line(path)} has no column of labels, only {one_line(', '.join(columns))}; name "
                    "it with --label-column"
                )
            self.used.add(path)
            labels |= of_this
        return labels

    def _choose_val(self, train: _Part, others: list[_Part]) -> _Part | None:
        """The first that has labels if train has; what is not chosen is said."""
        others.sort(key=lambda part: VAL_NAMES.index(split_of(part.folder.name)))
        if train.labelled:
            known = self._known(train)
            for part in others:
                if not part.labelled:
                    self._look_for_list(part, known)
        chosen = next((p for p in others if p.labelled == train.labelled), None)
        for part in others:
            if part is chosen:
                continue
            paths = [*part.labels, *part.flat, *(p for of in part.classes.values() for p in of)]
            if part.labelled == train.labelled:
                why = f"{_names([chosen.folder])} is the validation split" if chosen else ""
            elif part.labelled and chosen:
                why = "it has labels, and train has none"
            elif part.labelled:
                raise DataError(
                    f"{self._shown(part.folder)} has labels, and {self._shown(train.folder)} has none; "
                    f"give both splits the same layout, or convert one: {self._command(train.folder.path)}"
                )
            else:
                why = "no class folders there, and no list of labels"
            self._say_left_out(part.folder, why, paths)
        return chosen

    def _known(self, train: _Part) -> list[str]:
        return sorted(train.classes) or sorted({str(label) for label in train.labels.values()})

    def _look_for_list(self, part: _Part, classes: list[str]) -> None:
        where = one_line(str(self.where))
        found, path = listed_labels(self.root, part.images, classes, where)
        if found:
            part.labels = {part.images.within(name): label for name, label in found.items()}
            self.used.add(path)
            self.notes.append(f"the labels of {self._shown(part.folder)} are from {one_line(path)}")

    # The result

    def _numbered(
        self, parts: dict[str, _Part], place: Finder
    ) -> tuple[list[str], dict[str, list[Sample]]]:
        train = parts["train"]
        if not train.labelled or train.labels:
            listed = {
                split: [
                    *(Labelled(path, None, place(path)) for path in part.flat if not part.labelled),
                    *(Labelled(path, label, place(path)) for path, label in part.labels.items()),
                    *(Labelled(p, c, place(p)) for c, of in part.classes.items() for p in of),
                ]
                for split, part in parts.items()
            }
            return find_classes(self.where, listed)
        names = sorted(train.classes)
        number = {name: i for i, name in enumerate(names)}
        splits = {}
        for split, part in parts.items():
            unknown = sorted({*part.classes, *map(str, part.labels.values())} - set(names))
            if unknown:
                raise DataError(
                    f"{self._shown(part.folder)} has {quoted_classes(unknown)}, which "
                    f"{self._shown(train.folder)} lacks; train has {quoted_classes(names)}. Rename or move "
                    "the folder so that both splits have the same classes"
                )
            samples = [
                Sample(path, number[name], place(path))
                for name in names
                for path in part.classes.get(name, [])
            ]
            samples += [Sample(p, number[str(c)], place(p)) for p, c in part.labels.items()]
            splits[split] = samples
        return names, splits

    def _stray(self, parts: list[_Part], top: Folder) -> Iterable[str]:
        """Files that are not images, and images beside class folders or splits."""
        yield from (path for path in self.root.others() if not self._is_used(path))
        loose = [part.images for part in parts if part.classes]
        if all(part.folder is not top for part in parts):
            loose.append(top)
        for folder in loose:
            yield from (folder.within(name) for name in folder.own_images)

    def _empty(self, parts: list[_Part], top: Folder) -> set[str]:
        """Class folders and splits without an image."""
        empty = {f.path for p in parts if p.classes for f in p.images.folders if not f.holds_images}
        return empty | {f.path for f in top.folders if split_of(f.name) and not f.holds_images}

    def _is_used(self, path: str) -> bool:
        return path in self.used or path.rpartition("/")[2].lower() in METADATA_NAMES

    # Words

    def _archives(self, folder: Folder) -> str:
        found = [name for name in folder.files if name.lower().endswith(_ARCHIVES)]
        if not found or not self.is_on_disk:
            return ""
        return f"; of an archive there: {self._command(folder.within(found[0]))}"

    def _shown(self, folder: Folder) -> str:
        return one_line(str(self.where / folder.path))

    def _command(self, path: str, *options: str) -> str:
        command = f"`{one_line(shlex.join(['rela', 'convert', str(self.where / path), *options]))}`"
        return command if self.is_on_disk or not path else f"extract the archive, then {command}"

    def _say_left_out(self, folder: Folder, why: str, paths: list[str]) -> None:
        images = f"{len(paths):,} image{'s' if len(paths) != 1 else ''}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.where.resolve().name}-{folder.path}").strip(
            "-."
        )
        remedy = (
            f"; {self._command(folder.path, '--name', name or 'rest')} makes a data set of them"
        )
        self.notes.append(
            f"left out {images} of {self._shown(folder)}/: {why}{remedy if self.is_on_disk else ''}"
        )


def _is_below(path: str, folder: Folder) -> bool:
    return not folder.path or path.startswith(f"{folder.path}/")


def _names(folders: list[Folder]) -> str:
    shown = ", ".join(f"{one_line(folder.name)}/" for folder in folders[:4])
    return shown + (f" and {len(folders) - 4} more" if len(folders) > 4 else "")
