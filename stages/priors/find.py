"""Finding cached representations, and reading them together with the paths of their images."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rela.errors import ChoiceError, DataError
from rela.options import option_words
from rela.pipeline import Say
from rela.pipeline.manifest import MANIFEST_NAME, remedy
from rela.priors import PriorRequest
from rela.priors.names import is_called, shown_names
from rela.priors.prior import combined
from rela.stages.priors.identify import identify, refuse_unknown
from rela.stages.priors.layer import refuse_missing_layer
from rela.stages.priors.requests import names_of, requests_of
from rela.stages.priors.suggested import suggested_embedding
from rela.stages.settings import PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.workspace import Workspace, open_artifact

if TYPE_CHECKING:
    from rela.representations.named import NamedRepresentations


def open_representations(
    workspace: Workspace,
    which: str | Path | None = None,
    dataset_name: str | None = None,
    split: str | None = None,
    verify: bool = True,
) -> "NamedRepresentations":
    """Representations by folder, file, name or prior, or the only ones.

    For a folder or a file, the workspace is the one that contains it. The default `split` is theirs, else
    train. `verify` compares the file with its digest first.
    """
    artifact = None if which is None else _at(Path(which))
    if artifact is not None:
        around = Workspace.around(artifact)
        dataset, of_split = _images_of(around, artifact, dataset_name, split)
        return with_names(dataset, of_split, artifact, verify)
    if which is not None and (isinstance(which, Path) or "/" in which):
        raise ChoiceError(
            f"{which} contains no representations; expected a folder made by `rela embed` with "
            f"{MANIFEST_NAME} and {REPRESENTATIONS_FILE}, or their name"
        )
    dataset = workspace.dataset(dataset_name)
    requests = None if which is None else requests_of(workspace, dataset, str(which))
    found = find_cached(workspace, dataset, split or "train", requests, which and str(which))
    return with_names(dataset, split or "train", found, verify)


def find_cached(
    workspace: Workspace,
    dataset: DataSet,
    split: str,
    requests: Sequence[PriorRequest] | None = None,
    name: str | None = None,
    by_name: bool = True,
    only_centre_crops: bool = False,
) -> Representations:
    """The representations of one split for `requests`, called `name`; or the only ones.

    Without `by_name`, only the identities of the requested priors are compared, not names.
    `only_centre_crops` excludes those of random crops. Raises ChoiceError with the command that makes
    them, or with the names to choose from.
    """
    cached = workspace.representations(dataset.images_sha256(split))
    if only_centre_crops:
        cached = [a for a in cached if not a.content.crops]
    matching = cached
    if requests is not None and name is not None:
        try:
            matching = matching_representations(
                workspace, list(requests), name if by_name else "", cached, may_build=False
            )
        except ChoiceError:
            if name.startswith("run:"):  # there is no such run
                raise
            matching = []
    of_data_set = f"data set {dataset.name} ({split})"
    if not matching and requests and name is not None:
        refuse_maps(workspace, dataset, name, split)
        for each in requests:
            if not workspace.has_run(each.name.removeprefix("run:")):
                refuse_unknown(workspace, each)
            refuse_missing_layer(workspace, each)
        words = [word for each in names_of(workspace, name) for word in ("--prior", each)]
        words += _options_of(requests[0]) + (["--split", split] if split != "train" else [])
        raise ChoiceError(
            f"prior {name} has not been embedded for {of_data_set}{embedded_in_words(cached)}; run "
            f"`{shlex.join(['rela', 'embed', dataset.name, *words])}` first"
        )
    if not matching:
        raise ChoiceError(
            f"no prior has been embedded for {of_data_set}; run "
            f"`{suggested_embedding(dataset, split)}` first"
        )
    return require_one(matching, f"representations of {of_data_set} exist")


def cached_splits(
    workspace: Workspace,
    dataset: DataSet,
    name: str | None,
    say: Say,
    first: Representations | None = None,
) -> dict[str, Representations]:
    """Representations of one centre crop of train, and of val if the same prior embedded it.

    `first`: those of train, else found as by `find_cached`. Says the command that embeds a missing val.
    """
    if first is None:
        asked = None if name is None else requests_of(workspace, dataset, name)
        first = find_cached(workspace, dataset, "train", asked, name, only_centre_crops=True)
    found = {"train": first}
    if "val" in dataset.splits:
        others = workspace.representations(dataset.images_sha256("val"))
        same = [a for a in others if a.prior.key() == first.prior.key() and not a.content.crops]
        # of one prior there may be several: in float16 and float32
        same.sort(key=lambda a: (a.dtype, a.precision) != (first.dtype, first.precision))
        if same:
            found["val"] = same[0]
        else:
            words = [
                w for each in names_of(workspace, shown_name(first)) for w in ("--prior", each)
            ]
            command = shlex.join(["rela", "embed", dataset.name, *words, "--split", "val"])
            say(f"only train is embedded; `{command}` embeds val, too")
    return found


def _options_of(request: PriorRequest) -> list[str]:
    """What was given beside the name, as words of a command line."""
    words = option_words(PriorSettings, vars(request), {"image_size"})
    words += ["--image-size", str(request.image_size)] if request.resizes else []
    return words


def with_names(
    dataset: DataSet, split: str, representations: Representations, verify: bool = True
) -> "NamedRepresentations":
    """Representations joined with the paths and labels of their data set.

    Raises CorruptArtifactError or DataError if either is damaged.
    """
    import numpy as np

    from rela.representations.named import NamedRepresentations

    matrix, crops = representations.matrix(verify), representations.content.crops
    dataset.sound_file(dataset.index_path(split).name)
    rows = dataset.index(split)
    class_names = dataset.content.class_names
    labels = np.array([int(row["label"]) for row in rows], np.int64)
    if len(matrix.values) != len(rows) * (crops or 1):
        raise DataError(
            f"{matrix.path} has {len(matrix.values)} rows for {len(rows)} images of data set {dataset.name}; "
            f"{remedy(representations.path)}"
        )
    paths = [row["path"] for row in rows]
    return NamedRepresentations(matrix.values, paths, labels, class_names, matrix.attributes, crops)


def _at(path: Path) -> Representations | None:
    """The representations in the folder `path`, or with the file `path`; None without any."""
    folder = path.parent if path.name == REPRESENTATIONS_FILE else path
    artifact = open_artifact(folder) if (folder / MANIFEST_NAME).is_file() else None
    return artifact if isinstance(artifact, Representations) else None


def _images_of(
    workspace: Workspace, artifact: Representations, name: str | None, split: str | None
) -> tuple[DataSet, str]:
    """The data set and split with these images, preferably those recorded in the representations."""
    datasets = workspace.datasets() if name is None else [workspace.dataset(name)]
    found = [
        (dataset, of_split)
        for dataset in datasets
        for of_split in dataset.splits
        if dataset.images_sha256(of_split) == artifact.images_sha256 and split in (None, of_split)
    ]
    if not found:
        wanted = name or artifact.content.dataset
        raise ChoiceError(
            f"{artifact.path} does not match the images of a data set {wanted!r} in {workspace.root}; "
            f"convert them again, or name another data set"
        )
    own = artifact.content.dataset, artifact.content.split
    return min(found, key=lambda pair: (pair[0].name != own[0], pair[1] != own[1]))


def matching_representations(
    workspace: Workspace,
    requests: list[PriorRequest],
    name: str,
    cached: list[Representations],
    may_build: bool,
) -> list[Representations]:
    """The `cached` representations that match `name` by fingerprint, folder, prior or identity.

    The name of a run is resolved first, so features of an earlier run of the same name do not match. Other
    names are compared with the manifests, which does not require the weights.
    """
    exact = [a for a in cached if name in (a.fingerprint, a.name)]
    named = [a for a in cached if is_called(a.prior, name)]
    if exact or (named and not any(workspace.has_run(request.name) for request in requests)):
        return exact or named
    known = [identify(workspace, request, may_build) for request in requests]
    key = combined([prior.identity for prior in known]).key()
    return [a for a in cached if a.prior.key() == key]


def shown_name(representations: Representations) -> str:
    """The name of their prior, which tells it from others that the same images are embedded with."""
    workspace = Workspace.around(representations)
    others = workspace.representations(representations.images_sha256)
    return shown_names([representations.prior, *(other.prior for other in others)])[0]


def refuse_maps(workspace: Workspace, dataset: DataSet, name: str, split: str = "train") -> None:
    """Raise ChoiceError if `name` is that of maps, as printed by `rela embed` or `rela status`."""
    if name.endswith(" maps)") or name in [
        maps.name for maps in workspace.maps(dataset.images_sha256(split))
    ]:
        raise ChoiceError(
            f"--prior {name} names maps, which `rela train --dense 1` finds by itself; expected vectors"
            f"{embedded_in_words(workspace.representations(dataset.images_sha256(split)))}"
        )


def embedded_in_words(cached: Sequence[Representations]) -> str:
    """What to say of those that could be chosen instead; nothing without any."""
    names = list(dict.fromkeys(shown_names(each.prior for each in cached)))
    return f"; embedded: {', '.join(names)}, choose one of these with --prior" if names else ""


def require_one(
    artifacts: list[Representations], what: str, otherwise: str = ""
) -> Representations:
    """One artifact; raises ChoiceError listing the names to choose from if there are more."""
    if len(artifacts) == 1:
        return artifacts[0]
    names = shown_names(a.prior for a in artifacts)
    if len(set(names)) < len(names):
        names = [a.name for a in artifacts]
    raise ChoiceError(
        f"{len(artifacts)} {what}; choose one with --prior: {', '.join(names)}{otherwise}"
    )
