"""Representations of several priors → their concatenation, an artifact of the same kind."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, DataError
from rela.options import check_options, option_words, part_of
from rela.pipeline import Say
from rela.pipeline.artifact import cached
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.locks import in_use
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.spent import Spent
from rela.priors import PriorIdentity, PriorRequest
from rela.priors.prior import Combination
from rela.sources import is_url
from rela.stages.embed.embed import (
    embed,
    embed_wanted,
    find_representations,
    wanted_of,
)
from rela.stages.embed.results import CombineResult, EmbedResult, LayersResult
from rela.stages.embed.wanted import SHOWN_NAME
from rela.stages.embed.words import format_location, format_maps
from rela.stages.embed.words import format_result as format_embed_result
from rela.stages.priors.again import embed_commands
from rela.stages.priors.identify import identify
from rela.stages.priors.records import priors_of
from rela.stages.priors.requests import requests_of
from rela.stages.requests import Embed, command_of, repeats_the_command
from rela.stages.settings import DenseSettings, EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.workspace import Workspace, slug

STAGE_VERSION = 1
METHOD = "standardised columns, every prior at a total variance of 1, side by side"


@repeats_the_command("embed")
def embed_priors(
    workspace: Workspace, request: Embed, say: Say = print
) -> EmbedResult | CombineResult | LayersResult:
    """Embed the priors of a request with its options. A folder of images is converted first.

    Raises ChoiceError if --weights or --arch is given for several priors.
    """
    which = request.dataset
    if (url := _shards(workspace, which)) is not None:
        from rela.stages.embed.shards import embed_shards  # imports OpenCV

        return embed_shards(workspace, url, request, say)
    check_request(request)
    part, by_layer = request.part, request.by_layer
    settings = part_of(request, EmbedSettings)
    if which is None or workspace.has_dataset(str(which)):
        dataset = workspace.dataset(None if which is None else str(which))
        if which is not None and Path(which).exists():
            from rela.stages.dataset_of import say_if_changed

            say_if_changed(workspace, dataset, Path(which), say)
    else:
        from rela.stages.dataset_of import dataset_of_images  # a cache hit does without Pillow

        dataset = dataset_of_images(workspace, which, say)
    layers = [
        [r for name in request.priors for r in requests_of(workspace, dataset, name, described)]
        for described in by_layer
    ]
    for option in ("weights", "arch", "encoder"):
        if getattr(by_layer[0], option) is not None and len(layers[0]) > 1:
            raise ChoiceError(
                f"--{option} describes one --prior, but {len(layers[0])} are given; remove one"
            )
    if len(layers) > 1:  # refuse a layer that does not exist before any is embedded
        for each in chain(*layers):
            identify(workspace, each)
    dense = part_of(request, DenseSettings)
    if dense.dense and len(layers[0]) > 1:
        raise ChoiceError("--dense keeps the maps of one --prior; embed the others without it")
    check_options(settings)
    check_options(dense)
    made = partial(wanted_of, workspace, dataset, settings=settings, split=request.split)
    maps = [made(r, dense=dense) for (r,) in (layers if dense.dense else ())]
    vectors = [made(r) for (r,) in (layers if maps else ())]  # computed in the same forward passes
    with_maps = [
        embed_wanted(each, part, say, [*maps[i:], *vectors]) for i, each in enumerate(maps, start=1)
    ]
    results = [
        embed_all(workspace, dataset, requests, settings, request.split, part, say, layers[i:])
        for i, requests in enumerate(layers, start=1)
    ]
    return results[0] if len(results) == 1 and not maps else LayersResult(results, with_maps)


def check_request(request: Embed) -> None:
    """Raise ChoiceError for several layers in one text, and for options of maps without --dense."""
    if not request.dense and (unused := option_words(DenseSettings, vars(request))):
        raise ChoiceError(f"{unused[0]} requires --dense; remove it, or add --dense 7")
    layers = [request.layer] if isinstance(request.layer, str) else list(request.layer)
    each = [layer for text in layers for layer in text.split(",") if layer]
    if len(each) > len(layers):
        command = command_of("embed", request, layer=each)
        raise ChoiceError(
            f"--layer {','.join(layers)} is not a layer; give each by itself: `{command}`"
        )


def _shards(workspace: Workspace, which: str | Path | None) -> str | None:
    """The URL of shards that are embedded where they are; None for images that are here."""
    if is_url(which):
        return str(which)
    if which is None or not workspace.has_dataset(str(which)):
        return None
    dataset = workspace.dataset(str(which))
    return None if dataset.has_images else dataset.source


def embed_all(
    workspace: Workspace,
    dataset: DataSet,
    requests: Sequence[PriorRequest],
    settings: EmbedSettings | None = None,
    split: str = "train",
    shard: tuple[int, int] = (0, 1),
    say: Say = print,
    beside: Sequence[Sequence[PriorRequest]] = (),
) -> EmbedResult | CombineResult:
    """Embed one prior, or several one by one, each cached, and combine them.

    `beside`: the same priors at other layers, which are computed in the same forward passes.

    With shards, the process that finds all components finished combines them. Raises ChoiceError before
    embedding if two requests mean the same prior.
    """
    start = time.perf_counter()
    settings = settings or EmbedSettings()

    def embed_one(number: int) -> EmbedResult:
        at_other_layers = [
            wanted_of(workspace, dataset, layer[number], settings, split) for layer in beside
        ]
        request = requests[number]
        return embed(workspace, dataset, request, settings, split, shard, say, at_other_layers)

    if len(requests) == 1:
        return embed_one(0)
    _refuse_twins(workspace, requests)
    results = []
    for i, request in enumerate(requests):
        say(f"prior {request.name}")
        results.append(embed_one(i))
    for i in range(len(requests)):
        if results[i].artifact is None:  # other shards may have finished it in the meantime
            results[i] = replace(results[i], artifact=embed_one(i).artifact)
    artifacts = [result.artifact for result in results if result.artifact is not None]
    combination, was_there = None, False
    if len(artifacts) == len(requests):
        combination, was_there = combine(workspace, dataset, artifacts, settings.dtype, split)
    return CombineResult(
        combination, results[0].names, was_there, results, time.perf_counter() - start
    )


def find_all(
    workspace: Workspace,
    dataset: DataSet,
    requests: Sequence[PriorRequest],
    settings: EmbedSettings,
    split: str = "train",
) -> Representations | None:
    """The representations that `embed_all` would reuse, if any; builds and writes nothing."""
    found = [find_representations(workspace, dataset, r, settings, split) for r in requests]
    components = [artifact for artifact in found if artifact is not None]
    if len(requests) == 1 or len(components) < len(requests):
        return found[0] if len(requests) == 1 else None
    key = _fingerprint(components, settings.dtype)
    return workspace.representations_by_key(dataset.images_sha256(split), key)


def combine(
    workspace: Workspace,
    dataset: DataSet,
    components: list[Representations],
    dtype: str,
    split: str,
) -> tuple[Representations, bool]:
    """The representations of one split side by side, and whether they existed."""
    start = Spent.now()
    key = _fingerprint(components, dtype)
    images = dataset.images_sha256(split)
    prior = Combination(tuple(c.prior for c in components if isinstance(c.prior, PriorIdentity)))
    crops = _equal_crops(components)
    how = EmbedSettings(crops=crops, dtype=dtype, precision=components[0].precision)
    known = [prior for component in components for prior in priors_of(component)]
    words = embed_commands(workspace, dataset, known, how, split)[-1]
    with_crops = f"-{crops}crops" if crops else ""
    name = f"{dataset.name}-{split}-{slug(prior.name)[:SHOWN_NAME]}{with_crops}-{key[:12]}"
    destination = workspace.representations_dir / name

    def fill(directory: Path) -> Manifest:
        attributes = {
            "prior": prior.name,
            "combination": METHOD,
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "split": split,
            "class_names": json.dumps(dataset.content.class_names),
            "crops_per_image": crops,
        }
        path = directory / REPRESENTATIONS_FILE
        described, num_rows = _write(path, prior, components, dtype, attributes)
        inputs = {f"component {i}": c.fingerprint for i, c in enumerate(components, start=1)}
        return Manifest(
            kind="representations",
            fingerprint=key,
            inputs={"images": images, **inputs},
            parameters={
                "dtype": dtype,
                "combination": METHOD,
                "crops": crops,
                "precision": components[0].precision,
            },
            content={
                "shape": [num_rows, sum(component["width"] for component in described)],
                "prior": prior.as_dict(),
                "components": described,
                "run": None,
                "dataset": dataset.name,
                "split": split,
                "crops": crops,
            },
            provenance=provenance(Spent.now() - start, words)
            | {
                "components_seconds": [component.spent.seconds for component in components],
                "components_cpu_seconds": [component.spent.cpu_seconds for component in components],
            },
        )

    def find() -> Representations | None:
        return workspace.representations_by_key(images, key)

    with in_use(*(component.path for component in components)):
        return cached(destination, Representations, find, fill)


def _fingerprint(components: Sequence[Representations], dtype: str) -> str:
    return fingerprint(
        {
            "stage": "combine",
            "version": STAGE_VERSION,
            "method": METHOD,
            "components": [component.fingerprint for component in components],
            "dtype": dtype,
        }
    )


def _write(
    path: Path,
    prior: Combination,
    components: list[Representations],
    dtype: str,
    attributes: dict[str, Any],
) -> tuple[list[dict[str, Any]], int]:
    """Write in two passes: statistics, then rows. Returns a record per component and the row count."""
    from rela.representations.concatenation import fit_standardisation, write_combination

    matrices = [component.matrix() for component in components]
    fitted, described = [], []
    for identity, component, matrix in zip(prior.components, components, matrices, strict=True):
        try:
            standardisation = fit_standardisation(matrix.values)
        except DataError as error:
            raise DataError(f"prior {identity.name}: {error}") from error
        fitted.append(standardisation)
        described.append(
            {
                "prior": identity.name,
                "representations": component.name,
                "run": component.content.run,
                "width": standardisation.width,
                "num_dropped": standardisation.num_dropped,
            }
        )
    values = [matrix.values for matrix in matrices]
    more = {"components": json.dumps(described), "row_order": matrices[0].attributes["row_order"]}
    write_combination(path, values, fitted, dtype, attributes | more, matrices[0].crops)
    return described, len(values[0])


def format_result(
    result: EmbedResult | CombineResult | LayersResult,
    maps: Representations | None = None,
    is_known: bool = False,
) -> str:
    """The result and its path; for a combination, its components first; of several layers, each in turn.

    `maps`: those made beside it, with which the next command trains. `is_known`: how its files are read was
    said of another layer.
    """
    if isinstance(result, LayersResult):
        beside = [each.artifact for each in result.maps] or [None] * len(result.layers)
        known = (number > 0 for number in range(len(result.layers)))
        return "\n".join(
            [*map(format_maps, result.maps), *map(format_result, result.layers, beside, known)]
        )
    if isinstance(result, EmbedResult):
        lines = [format_embed_result(result)]
        if result.artifact is not None:
            was_there = result.cached or is_known
            lines += format_location(result.artifact, result.names, was_there, maps)
        return "\n".join(lines)
    lines = [format_embed_result(component) for component in result.components]
    if result.artifact is None:
        return "\n".join([*lines, "the last shard to finish combines them"])
    rows, width = result.artifact.content.shape
    num_dropped = sum(component.num_dropped for component in result.artifact.content.components)
    dropped = f" ({num_dropped} constant columns left out)" if num_dropped else ""
    what = f"{result.artifact.prior.name}: {rows:,} × {width} combined representations{dropped}"
    there = " already exist" if result.cached else ""
    where = format_location(result.artifact, result.names, result.cached)
    return "\n".join([*lines, f"{what}{there}: {result.artifact.path}", *where])


def _refuse_twins(workspace: Workspace, requests: Sequence[PriorRequest]) -> None:
    """Raise ChoiceError for a prior that is given twice or unavailable, before hours of embedding."""
    seen: list[dict[str, object]] = []
    for request in requests:
        key = identify(workspace, request).identity.key()
        if key in seen:
            raise ChoiceError(f"prior {request.name} is given twice; combine different priors")
        seen.append(key)


def _equal_crops(components: Sequence[Representations]) -> int:
    """Random crops per image, equal for all components; 0 for the centre crop."""
    crops = {component.content.crops for component in components}
    if len(crops) > 1:
        raise ChoiceError(
            f"representations of {' and '.join(map(str, sorted(crops)))} crops per image cannot be "
            "combined; embed the priors again with the same --crops"
        )
    return crops.pop()
