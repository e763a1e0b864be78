"""A tree of folders → train and val with their classes, from names alone.

Accepted, where `.` is the given folder, or the one folder in it that holds everything:

- `./CLASS/**/image`: one folder per class;
- `./train/CLASS/**` beside `./val/CLASS/**`: splits, of any usual name (`Training`, `dev`, `test`, ...);
- `./train/CLASS/**` beside `./val/image`, with a list of labels (see label_lists.py) or without labels;
- images with `metadata.csv` or `metadata.jsonl` beside them, as Hugging Face's ImageFolder;
- `./image`: images without labels, also in `./images/` beside `./labels/`.

What names cannot tell apart is refused with its readings, and the command for each.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rela.errors import ChoiceError, DataError, one_line
from rela.sources.labels import Label, Labelled, asked_split, find_classes, quoted_classes
from rela.sources.source import ImageSource, Place, Sample, SourceOptions
from rela.sources.splits.label_lists import listed_labels
from rela.sources.splits.metadata import METADATA_NAMES, labels_in_metadata
from rela.sources.splits.names import VAL_NAMES, split_of, splits_among
from rela.sources.splits.other_files import images_by_content
from rela.sources.splits.tree import Folder
from rela.sources.splits.words import Words, names_of

CLASSES, SPLITS = "classes", "splits"  # of --layout
_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "jpegs"}
_ANNOTATIONS = {
    "labels", "label", "annotations", "annotation", "masks", "mask", "gt", "groundtruth", "ground_truth",
    "segmentation", "segmentations", "segmentationclass", "segmentationobject", "trimaps", "bboxes",
}  # fmt: skip
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
        self.words = Words(where, root.tree.is_on_disk)
        self.notes: list[str] = []
        self.meant: dict[str, str] = {}  # split by path, of folders that lie beside each other
        self.splits_beside: set[str] = set()  # paths that --split may name
        self.masks: list[Folder] = []  # beside images/ in class folders
        self.used: set[str] = set()  # lists and metadata that were read

    def source(self, place: Finder) -> ImageSource:
        top = self._inside(self.root)
        self.splits_beside = {folder.path for folder in top.folders}
        train, others, beside = self._splits(top)
        parts = {
            "train": self._part(train, top, [f for f in top.folders if f in (*others, *beside)])
        }
        if not (parts["train"].classes or parts["train"].flat or parts["train"].labels):
            raise DataError(self.words.no_images(train))
        if train is top and parts["train"].classes:
            self._require_one_reading(top)
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
            self.notes.insert(0, f"the images are in {self.words.path(top)}")
        if self.masks:
            count = sum(len(folder.images()) for folder in self.masks)
            self.notes.append(
                f"left out {count:,} images of {one_line(self.masks[0].path)}/ and other masks or labels "
                "beside images/ in the classes"
            )
        stray = sorted(set(self._stray([*parts.values()], top)))
        if self.root.tree.is_on_disk and (misnamed := images_by_content(self.root, stray)):
            self.notes.append(
                f"{len(misnamed):,} of the stray files begin as images, such as {one_line(misnamed[0])}; "
                "give them a suffix such as .jpg"
            )
        class_names, splits = self._numbered(parts, place)
        return ImageSource(
            root=self.where,
            class_names=class_names,
            splits=splits,
            val_name=f"{val.folder.path.rpartition('/')[2]}/" if val else "",
            stray_files=stray,
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
        names = [f.name for f in folder.holding]
        return not split_of(folder.name) or len(splits_among(names)) == len(names)

    def _splits(self, top: Folder) -> tuple[Folder, list[Folder], list[Folder]]:
        """(train, splits that may become val, other folders with images beside them)."""
        holding = top.holding
        meant = splits_among(f.name for f in top.folders)
        self.meant = {f.path: meant[f.name] for f in top.folders if f.name in meant}
        if self.options.split is not None:
            names = [f.name for f in holding]
            chosen = asked_split(self.words.path(top), names, self.options.split)
            return holding[names.index(chosen)], [], []
        named = [f for f in holding if f.path in self.meant]
        others = [f for f in holding if f not in named]
        if not named or self.options.layout == CLASSES:
            return top, [], []
        trains = [f for f in named if self.meant[f.path] == "train"]
        rest = [f for f in named if f not in trains]
        if not trains:  # one that holds nothing is an error, and nothing else takes its place
            trains = [f for f in top.folders if self.meant.get(f.path) == "train"]
        if len(trains) > 1:
            raise self._ambiguous(top, "has several train splits", *map(self.words.only, trains))
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
            top,
            f"holds {names_of(rest)} and no train split",
            self._classes(),
            *map(self.words.only, rest),
        )

    def _require_one_reading(self, top: Folder) -> None:
        """Refuse class folders of which some hold splits, or that hold all the same folders."""
        holding = top.holding
        if len(holding) < 2 or self.options.layout == CLASSES:
            return
        inner = {f: {inside.name for inside in f.holding} for f in holding}
        with_splits = [f for f, names in inner.items() if not f.own_images and _are_splits(names)]
        if 0 < len(with_splits) < len(holding):
            rest = names_of([f for f in holding if f not in with_splits])
            what = f"holds {names_of(with_splits)} with splits in it, beside {rest}"
            raise self._ambiguous(top, what, self._classes(), *map(self.words.only, with_splits))
        every = set().union(*inner.values())
        alike = all(len(names) > 1 and 2 * len(names) >= len(every) for names in inner.values())
        known = _are_splits(every) or {name.lower() for name in every} <= _IMAGES | _ANNOTATIONS
        if alike and not known and not any(f.own_images for f in holding):
            folders = names_of(sorted(holding[0].holding, key=lambda f: f.name))
            what = f"holds {names_of(holding)}, and each of them folders such as {folders}"
            raise self._ambiguous(top, what, self._classes(), *map(self.words.only, holding[:3]))

    def _refuse_both_readings(self, top: Folder, others: list[Folder], named: list[Folder]) -> None:
        what = f"holds {names_of(named)} beside {names_of(others)}"
        splits = (
            f"{names_of(named)} are splits" if len(named) > 1 else f"{names_of(named)} is a split"
        )
        raise self._ambiguous(
            top, what, self._classes(), f"if {splits}: {self.words.command('', '--layout', SPLITS)}"
        )

    def _classes(self) -> str:
        return f"if all are classes: {self.words.command('', '--layout', CLASSES)}"

    def _ambiguous(self, top: Folder, what: str, *readings: str) -> ChoiceError:
        return ChoiceError(f"{self.words.path(top)} {what}; {'; '.join(readings)}")

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
        classes = {f.name: self._of_class(f) for f in images.holding if f not in without}
        return _Part(folder, images, classes, [images.within(name) for name in images.own_images])

    def _of_class(self, folder: Folder) -> list[str]:
        """The images of a class folder, without masks that lie beside images/ in it."""
        masks = [f for f in folder.holding if f.name.lower() in _ANNOTATIONS]
        rest = [f for f in folder.holding if f not in masks]
        is_pair = masks and len(rest) == 1 and rest[0].name.lower() in _IMAGES
        if not is_pair or folder.own_images or self.options.layout == CLASSES:
            return folder.images()
        self.masks += masks
        return rest[0].images()

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
        others.sort(key=lambda part: VAL_NAMES.index(self.meant[part.folder.path]))
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
                why = f"{names_of([chosen.folder])} is the validation split" if chosen else ""
            elif part.labelled and chosen:
                why = "it has labels, and train has none"
            elif part.labelled:
                has, lacks = self.words.path(part.folder), self.words.path(train.folder)
                raise DataError(
                    f"{has} has labels, and {lacks} has none; give both splits the same layout, or "
                    f"convert one: {self.words.command(train.folder.path)}"
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
            self.notes.append(
                f"the labels of {self.words.path(part.folder)} are from {one_line(path)}"
            )

    def _say_left_out(self, folder: Folder, why: str, paths: list[str]) -> None:
        self.notes.append(
            self.words.left_out(folder, why, paths, folder.path in self.splits_beside)
        )

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
                    f"{self.words.path(part.folder)} has {quoted_classes(unknown)}, which "
                    f"{self.words.path(train.folder)} lacks; train has {quoted_classes(names)}. Rename or "
                    "move the folder so that both splits have the same classes"
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
        return empty | {f.path for f in top.folders if f.path in self.meant and not f.holds_images}

    def _is_used(self, path: str) -> bool:
        return path in self.used or path.rpartition("/")[2].lower() in METADATA_NAMES


def _is_below(path: str, folder: Folder) -> bool:
    return not folder.path or path.startswith(f"{folder.path}/")


def _are_splits(names: Iterable[str]) -> bool:
    """Whether there are several folders, and all are splits by their names."""
    names = list(names)
    return len(names) > 1 and len(splits_among(names)) == len(names)
