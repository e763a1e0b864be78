"""Images of any source → a data set: for each split, a beton and a CSV with the file of each row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rela.data.beton.contact_sheet import contact_sheet
from rela.data.beton.encoding import Encoding
from rela.data.beton.reader import open_beton
from rela.data.beton.tally import Tally
from rela.data.beton.value_range import write_in_range
from rela.data.beton.writer import WriteResult, write_beton
from rela.errors import ChoiceError, DataError, one_line
from rela.options import check_options, part_of
from rela.pipeline import Say
from rela.pipeline.artifact import cached
from rela.pipeline.cores import num_cores
from rela.pipeline.fingerprint import fingerprint, ordered_digest
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.spent import Spent
from rela.result import Result, Table
from rela.sources import is_url, open_source
from rela.sources.labels import quoted_classes
from rela.sources.pixels import PixelRules
from rela.sources.remote import list_shards
from rela.sources.source import ImageSource, Sample
from rela.sources.splits.held_out import find_copies, with_val
from rela.sources.splits.several import joined
from rela.sources.splits.subset import at_most
from rela.stages.conversion import asked, by_one_pattern, command, made_by, name_of
from rela.stages.display import bar_of_bytes, next_command, progress_bar
from rela.stages.left_out import (
    LEFT_OUT_FILE,
    bad_images_in_words,
    left_out_csv,
    oddities,
    options_that_skip,
    refused,
    require_good_images,
    without_numbers,
)
from rela.stages.priors.suggested import suggested_embedding
from rela.stages.remove import depending, remove_directory, thing_at
from rela.stages.requests import Convert
from rela.stages.same_images import (
    STAGE_VERSION,
    again,
    deciding,
    is_older,
    may_be_of,
    older,
    source_digest,
    sources_digest,
    taken,
)
from rela.stages.settings import ConvertSettings
from rela.stages.shards.gather import clear_gathered, gathered, options_of
from rela.stages.shards.parts import listing_key
from rela.stages.workspace import summary as summaries
from rela.stages.workspace.dataset import DataSet, index_lines
from rela.stages.workspace.encoding import encoding_by
from rela.stages.workspace.workspace import Workspace, open_as

_MOST_WORKERS_PER_CORE = 4


@dataclass(frozen=True, repr=False)
class ConvertResult(Result):
    """The data set, whether it existed, and what it holds (None: of a version without summaries)."""

    artifact: DataSet
    cached: bool
    seconds: float
    summary: summaries.Summary | None

    def shown(self) -> dict[str, Any]:
        """The data set, and what it took."""
        return {**self.artifact.shown(), "cached": self.cached, "seconds": round(self.seconds, 1)}

    def tables(self) -> dict[str, Table]:
        """The lines that `rela convert` ends with."""
        return {"summary": summaries.summary_table(self.artifact, self.summary)}


def convert(workspace: Workspace, request: Convert, say: Say = print) -> ConvertResult:
    """Convert a source into a data set, named after the source by default.

    A data set of that name with the same images and settings is reused. Unless bad images are skipped,
    raises DataError listing them, and writes nothing.
    """
    check_options(request)
    if not any(map(is_url, request.sources)):
        name_of(request)  # refused before hours of listing
        images = read_source(list(map(Path, request.sources)), part_of(request, ConvertSettings))
        return _write(workspace, request, images, say)
    if request.more:
        raise ChoiceError(
            by_one_pattern(request)
            or "a URL is the only SRC: convert it by itself, or give one URL for all shards"
        )
    settings = part_of(request, ConvertSettings)
    remote = list_shards(str(request.source), settings.format)
    name, key = name_of(request), listing_key(remote, settings)

    def find() -> ConvertResult | None:
        """By names, sizes and versions of the shards, none of which is read."""
        existing = open_as(DataSet, workspace.datasets_dir / name)
        if existing is None or existing.facts.provenance.shards != key:
            return None
        return ConvertResult(existing, True, 0.0, summaries.read_summary(existing))

    encoding = encoding_by(settings)
    if (found := find()) is not None:
        clear_gathered(workspace, remote, settings, encoding)
        return found
    existing = open_as(DataSet, workspace.datasets_dir / name)
    if existing is not None and not request.replace:
        raise taken(existing, request)
    workers, start = _num_workers(request.workers, say), Spent.now()
    try:
        with gathered(workspace, remote, name, settings, encoding, workers, say) as (
            images,
            before,
        ):
            images = _with_val(images, settings)
            return _write(workspace, request, images, say, key, start - before)
    except (DataError, FileNotFoundError):  # a faster process removes the parts
        if (found := find()) is None:
            raise
        return found


def _write(
    workspace: Workspace,
    request: Convert,
    images: ImageSource,
    say: Say,
    shards: str | None = None,
    start: Spent | None = None,
) -> ConvertResult:
    """Write the data set of these images, or find it; `shards`: the key of shards that they are from."""
    start, settings = start or Spent.now(), part_of(request, ConvertSettings)
    name = name_of(request)
    destination = workspace.datasets_dir / name
    for line in oddities(images):
        say(line)
    workers = _num_workers(request.workers, say)
    encoding = encoding_by(settings)

    def find() -> DataSet | None:
        existing = open_as(DataSet, destination)
        if existing is None:
            return None
        if is_older(existing) and not request.replace:
            raise older(existing, again(existing, workspace, request))
        same = may_be_of(existing, images, settings) and not is_older(existing)
        if same and existing.content.sources_sha256 == source_digest(images):
            return existing
        if request.replace:
            return None
        cut = settings.val_fraction is None
        raise _cut_since(existing, request) if cut else taken(existing, request)

    def fill(directory: Path) -> Manifest:
        def write(chosen: Encoding) -> dict[str, WriteResult]:
            if images.url and chosen != encoding:
                raise _other_range(request, images, chosen)
            results = {}
            for split, samples in images.splits.items():
                path = directory / f"{split}.beton"
                path.unlink(missing_ok=True)
                with progress_bar(len(samples), f"convert {split}", "img") as bar:
                    results[split] = write_beton(
                        path, images.root, samples, chosen, workers, settings.seed, bar.update
                    )
            return results

        strict = settings.on_bad_image == "stop"
        results, rules = write_in_range(write, encoding, settings.bits, strict, say)
        bad = [entry for result in results.values() for entry in result.bad_images]
        left_out = left_out_csv(images, bad)
        listed = workspace.root / f"{name}-{LEFT_OUT_FILE}"
        if bad and settings.on_bad_image == "stop":
            changed = options_that_skip(results, images.val_fraction > 0)
            skip = command(request, **changed) if changed else ""
            raise refused(images, request, bad, listed, skip)
        require_good_images(results, images.val_fraction > 0)
        listed.unlink(missing_ok=True)
        if bad:
            images_are = "bad image is" if len(bad) == 1 else "bad images are"
            say(f"{len(bad):,} {images_are} left out, and in {destination / LEFT_OUT_FILE}:")
            say("\n".join(bad_images_in_words(bad)))
        if left_out:
            (directory / LEFT_OUT_FILE).write_bytes(left_out)
        of_train, of_val = (
            {*results[s].source_sha256} if s in results else set() for s in ("train", "val")
        )
        if twins := sum(digest in of_train for digest in of_val):
            say(
                f"{twins:,} images of val are also in train, byte for byte: accuracies are too high"
            )
        for split, result in results.items():
            (directory / f"{split}.csv").write_bytes(_index_csv(result))
        manifest = _manifest(images, settings, results, rules, bad, Spent.now() - start)
        manifest.provenance["asked"] = asked(request, settings)
        manifest.provenance["command"] = made_by(request, name)
        if shards is not None:
            manifest.provenance["shards"] = shards
        reasons = [(path, without_numbers(reason)) for path, reason in bad]
        notes = oddities(images)
        in_train = {sample.label for sample in results["train"].samples}
        if without := [c for label, c in enumerate(images.class_names) if label not in in_train]:
            notes.append(f"train has no image of {one_line(quoted_classes(without))}")
            say(notes[-1])
        summaries.summarize(manifest, results, reasons, notes).write(directory)
        beton = open_beton(directory / "train.beton")
        contact_sheet(beton, images.class_names, settings.seed).save(
            directory / summaries.SHEET_FILE, compress_level=1
        )
        if request.replace and destination.is_dir():
            _remove_old(workspace, destination, say)
        return manifest

    dataset, was_there = cached(destination, DataSet, find, fill)
    coverage = dataset.coverage()
    if coverage is not None and not coverage.is_whole:
        say(coverage.words())
    seconds = (Spent.now() - start).seconds if was_there else dataset.spent.seconds
    return ConvertResult(dataset, was_there, seconds, summaries.read_summary(dataset))


def _num_workers(chosen: int | None, say: Say) -> int:
    """One process per core by default, and at most four: more only compete."""
    cores = num_cores()
    started = min(chosen or cores, _MOST_WORKERS_PER_CORE * cores)
    if chosen is not None and chosen > cores:
        has = f"this process may use {cores} core{'s' * (cores > 1)}"
        say(f"--workers {chosen}: {has}; {started} are started, and more than {cores} only compete")
    return started


def read_source(
    source: Path | Sequence[Path], settings: ConvertSettings, compare: bool = True
) -> ImageSource:
    """List the images of a source, or of several as one, with a validation split.

    If one is cut from train, files are opened to find copies of an image; not without `compare`.
    """
    with bar_of_bytes("list the images") as listed:
        paths = [source] if isinstance(source, Path) else source
        each = [open_source(p, settings.format, options_of(settings), listed) for p in paths]
        found = each[0] if len(each) == 1 else joined(paths, each)
    return _with_val(found, settings, compare)


def _with_val(found: ImageSource, settings: ConvertSettings, compare: bool = True) -> ImageSource:
    def copies(samples: Sequence[Sample]) -> dict[str, str]:
        if not compare:
            return {}
        with progress_bar(len(samples), "find copies", "img", delay=1, leave=False) as bar:
            return find_copies(found.root, samples, bar.update)

    found = at_most(found, settings.max_images, settings.seed)
    return with_val(found, settings.val_fraction, settings.seed, copies)


def _other_range(request: Convert, images: ImageSource, needed: Encoding) -> ChoiceError:
    """The error for shards whose images were scaled by another range than all of them need."""
    bits, as_now = needed.pixels.bits, encoding_by(part_of(request, ConvertSettings)).pixels.bits
    remedy = f"give their bits: `{command(request, bits=bits)}`"
    if bits == as_now:
        remedy = "copy the shards here and convert the copy"
    return ChoiceError(
        f"{images.where} has images of more than 8 bits, and their range is known only now that all shards "
        f"were read; {remedy}"
    )


def _remove_old(workspace: Workspace, path: Path, say: Say) -> None:
    """Remove the data set that is replaced; what depends on it stays, and is named."""
    others = [f"{thing.words} ({thing.why})" for thing in depending(workspace, path)]
    remove_directory(thing_at("dataset", path))
    if others:
        say(
            f"data set {path.name} is replaced; these still belong to the old one: {', '.join(others)}"
        )


def _cut_since(existing: DataSet, request: Convert) -> ChoiceError:
    """What `_taken` says, or the reason if only the default of --val-fraction makes the difference."""
    plain = replace(part_of(request, ConvertSettings), val_fraction=0.0)
    whole = read_source(list(map(Path, request.sources)), plain)
    same = "val" not in existing.splits and may_be_of(existing, whole, plain)
    if not same or existing.content.sources_sha256 != source_digest(whole):
        return taken(existing, request)
    return ChoiceError(
        f"data set {existing.name} holds these images without a validation split, which is now held out "
        f"by default; use it as it is with `{command(request, val_fraction=0)}`, or make one with a "
        f"validation split: `{command(request, name=existing.name + '-val')}`"
    )


def format_result(result: ConvertResult) -> str:
    """What the data set holds, and its path."""
    dataset = result.artifact
    if result.cached:
        how = f"already exists, unchanged: {dataset.path}"
    else:
        rate = dataset.num_images() / result.seconds
        how = f"written to {dataset.path}, {result.seconds:.1f} s, {rate:,.0f} images/s"
    unsaid = result.summary and replace(result.summary, notes=[])  # were said
    what = summaries.dataset_in_words(dataset, unsaid)
    done = f"data set {dataset.name} ({dataset.classes_in_words}) {how}"
    made = Workspace.around(dataset).representations(dataset.images_sha256())
    is_ready = len(made) == 1 and made[0].content.run is None  # such as those of the same shards
    train = next_command("train", dataset.name)
    embed = f"next: `{suggested_embedding(dataset)}`"
    return "\n".join([*what, done, train if is_ready else embed])


def _manifest(
    images: ImageSource,
    settings: ConvertSettings,
    results: dict[str, WriteResult],
    rules: PixelRules,
    bad: list[tuple[str, str]],
    spent: Spent,
) -> Manifest:
    splits = {split: _split_content(result) for split, result in results.items()}
    tally = sum((result.tally for result in results.values()), Tally())
    meaning = {
        "stage": "convert",
        "version": STAGE_VERSION,
        "class_names": images.class_names,
        "splits": {s: [c["images_sha256"], c["labels_sha256"]] for s, c in splits.items()},
    }
    return Manifest(
        kind="dataset",
        fingerprint=fingerprint(meaning),
        parameters=deciding(settings, images),
        content={
            "class_names": images.class_names,
            "labelled": images.labelled,
            "splits": splits,
            "bits": rules.bits if "integer" in tally.largest else None,
            "float_bits": rules.float_bits if "float" in tally.largest else None,
            "bad_images": [list(entry) for entry in bad],
            "sources_sha256": sources_digest(
                images,
                {
                    split: {
                        **dict(zip((s.path for s in r.samples), r.source_sha256, strict=True)),
                        **dict(zip((b[0] for b in r.bad_images), r.bad_image_sha256, strict=True)),
                    }
                    for split, r in results.items()
                },
            ),
        },
        provenance=provenance(spent) | {"source": images.url or str(images.root.resolve())},
    )


def _split_content(result: WriteResult) -> dict[str, Any]:
    counts = Counter(sample.label for sample in result.samples)
    sizes = result.tally.sizes
    sides = sorted(min(size) for size in sizes.elements())
    return {
        "num_images": len(result.samples),
        "images_per_class": [counts[label] for label in sorted(counts)],
        "num_jpeg": result.num_jpeg,
        "num_raw": result.num_raw,
        "largest_side_pixels": max(max(size) for size in sizes),
        "median_shorter_side_pixels": sides[len(sides) // 2],
        "images_sha256": ordered_digest(result.image_sha256),
        "labels_sha256": ordered_digest(str(sample.label) for sample in result.samples),
    }


def _index_csv(result: WriteResult) -> bytes:
    digests = zip(result.source_sha256, result.image_sha256, strict=True)
    rows = (
        (index, sample.label, sample.path, *its)
        for index, (sample, its) in enumerate(zip(result.samples, digests, strict=True))
    )
    return b"".join(index_lines(rows))
