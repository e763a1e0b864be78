"""At most so many images of each split, the same number of every class as far as there are enough."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rela.sources.source import ImageSource, Sample, rank


def at_most(source: ImageSource, count: int | None, seed: int) -> ImageSource:
    """`source` with at most `count` images in each split; all of them with None."""
    if count is None:
        return source
    splits = {name: evenly(samples, count, seed) for name, samples in source.splits.items()}
    counts = ", ".join(
        f"{len(found):,} of {len(source.splits[name]):,} images of {name}"
        for name, found in splits.items()
    )
    return replace(source, splits=splits, notes=[*source.notes, f"--max-images: {counts}"])


def evenly(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """`count` of the samples, in their order: the first of each class, then the second of each, and so on.

    The images of a class are ordered by a hash of (seed, name), and so is each round.
    """
    by_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: rank(seed, sample)):
        by_class[sample.label].append(sample)
    rounds = [(n, rank(seed, s), s.path) for of in by_class.values() for n, s in enumerate(of)]
    chosen = {path for _, _, path in sorted(rounds)[:count]}
    return [sample for sample in samples if sample.path in chosen]
