"""Available and embedded priors. Nothing is built or downloaded."""

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rela.errors import one_line
from rela.models.own_code.networks import MODULE_PREFIX
from rela.models.own_code.plugins import PRIORS, package_of, plugin_names
from rela.pipeline.files import write_atomic
from rela.pipeline.manifest import installed_versions
from rela.priors import KINDS, PriorIdentity, prefix_of
from rela.priors.names import shown_names
from rela.priors.prior import PriorKind
from rela.result import Result, Table
from rela.stages.display import format_table, human_bytes
from rela.stages.priors.records import recorded_weights
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.run import Run
from rela.stages.workspace.schema import read_json
from rela.stages.workspace.workspace import Workspace

_EXAMPLES = ("resnet18", "resnet50")


@dataclass(frozen=True)
class ListedPrior:
    """A value for --prior; parts in capitals are to be filled in.

    `usable` is False if a package must be installed first; `note` describes the weights; `embedded` lists
    data sets, with a split other than train and the number of crops in brackets.
    """

    source: str
    prior: str
    usable: bool
    note: str
    embedded: list[str]


@dataclass(frozen=True, repr=False)
class PriorList(Result):
    """All rows of the list."""

    workspace: str
    priors: list[ListedPrior]

    def shown(self) -> dict[str, Any]:
        """How many rows there are, and how many of them are embedded."""
        embedded = sum(bool(row.embedded) for row in self.priors)
        return {"workspace": self.workspace, "priors": len(self.priors), "embedded": embedded}

    def tables(self) -> dict[str, Table]:
        """All rows."""
        rows = [[p.source, p.prior, p.note, ", ".join(p.embedded) or "–"] for p in self.priors]
        return {"priors": (("source", "prior", "weights", "embedded for"), rows)}


def list_priors(workspace: Workspace) -> PriorList:
    """Read manifests and the folders where packages store weights."""
    embedded, sources, notes = _embedded(workspace)
    rows = [
        *(_run_row(run, embedded) for run in workspace.runs()),
        *_torchvision_rows(workspace, embedded),
    ]
    listed = {row.prior for row in rows}
    rows += [
        ListedPrior(sources[name], name, True, notes[name], datasets)
        for name, datasets in sorted(embedded.items(), key=lambda item: (sources[item[0]], item[0]))
        if name not in listed
    ]
    rows += [
        ListedPrior("plugin", name, True, package_of(PRIORS, name), [])
        for name in plugin_names(PRIORS)
        if name not in embedded
    ]
    others = [kind for kind in KINDS.values() if kind.PREFIX and kind.METAVAR]
    rows += map(_row, sorted(others, key=lambda kind: len(kind.PACKAGES)))
    return PriorList(str(workspace.root), rows)


def format_result(found: PriorList) -> str:
    """The list as a table."""
    table = format_table(*found.tables()["priors"])
    return f"{table}\ncompare embedded priors with `rela priors rank DATASET`"


def _embedded(
    workspace: Workspace,
) -> tuple[dict[str, list[str]], dict[str, str], dict[str, str]]:
    """Data sets, source and weights of each embedded prior, by its name."""
    datasets: dict[str, set[str]] = defaultdict(set)
    sources, notes = {}, {}
    cached = workspace.representations()
    for artifact, name in zip(cached, shown_names(a.prior for a in cached), strict=True):
        crops = artifact.content.crops
        more = [artifact.content.split] if artifact.content.split != "train" else []
        more += [f"{crops} crops"] if crops else []
        datasets[name].add(artifact.content.dataset + (f" ({', '.join(more)})" if more else ""))
        sources[name], notes[name] = _source(artifact), _weights(workspace, artifact)
    return {name: sorted(found) for name, found in datasets.items()}, sources, notes


def _weights(workspace: Workspace, found: Representations) -> str:
    """Architecture, input size, and the file of the weights if they came from one."""
    if not isinstance(found.prior, PriorIdentity):
        return "embedded"
    file = recorded_weights(workspace, found.prior)
    given = " (the source as the caller gave it)"
    words = [
        found.prior.arch + given * found.prior.arch.startswith(MODULE_PREFIX),
        f"{found.prior.image_size} px",
        *([] if file is None else [str(file)]),
    ]
    return one_line(", ".join(words))


def _source(found: Representations) -> str:
    if found.content.components:
        return "combination"
    if found.content.run is not None:
        return "run"
    prefix = prefix_of(found.prior.name).removesuffix(":")
    is_file = not prefix and isinstance(found.prior, PriorIdentity) and not _is_named(found.prior)
    return "file" if is_file else prefix or "torchvision"


def _is_named(identity: PriorIdentity) -> bool:
    """Whether a name without a prefix is that of a torchvision model, not that of a file."""
    return identity.name.partition("@")[0] == identity.arch


def _run_row(run: Run, embedded: dict[str, list[str]]) -> ListedPrior:
    note = f"{run.model}, {run.image_size} px, trained on {run.content.dataset}"
    return ListedPrior("run", run.name, True, note, embedded.get(run.name, []))


def _torchvision_rows(workspace: Workspace, embedded: dict[str, list[str]]) -> list[ListedPrior]:
    """One row per model with weights on disk, and one row for all others.

    torchvision takes seconds to import, so its names are only listed if there are files on disk.
    """
    on_disk, published = _on_disk(workspace)
    rows = []
    for name, file in published.items():
        if file in on_disk:
            note = f"{file}, {human_bytes(on_disk[file])}"
            rows.append(ListedPrior("torchvision", name, True, note, embedded.get(name, [])))
    examples = (name for name in (*_EXAMPLES, *published) if published.get(name) not in on_disk)
    others = f"{len(published) - len(rows)} others" if published else "any classification model"
    note = f"{others}, such as {next(examples)}; downloaded on first use"
    return [*rows, ListedPrior("torchvision", "NAME", True, note, [])]


def models_on_disk(workspace: Workspace) -> list[str]:
    """The torchvision models with weights in torch.hub's folder."""
    on_disk, published = _on_disk(workspace)
    return [name for name, file in published.items() if file in on_disk]


def _on_disk(workspace: Workspace) -> tuple[dict[str, int], dict[str, str]]:
    """Bytes of the files in torch.hub's folder, and the published file of each model if there are any."""
    on_disk = {path.name: path.stat().st_size for path in _checkpoints_dir().glob("*.pth")}
    return on_disk, _published_files(workspace) if on_disk else {}


def _published_files(workspace: Workspace) -> dict[str, str]:
    """Weights file by model; cached in the workspace for this version of torchvision."""
    version = installed_versions().get("torchvision")
    record = workspace.prior_records_dir / f"torchvision-{version}.json"
    published = read_json(record, dict[str, str])
    if not published:
        from rela.priors.torchvision import published_files

        published = published_files()
        if workspace.root.is_dir():  # listing does not create one
            record.parent.mkdir(exist_ok=True)
            write_atomic(record, json.dumps(published, indent=1).encode())
    return published


def _row(kind: PriorKind) -> ListedPrior:
    """The row of a kind of prior; its packages are found without importing them."""
    source, syntax = kind.PREFIX.removesuffix(":"), kind.PREFIX + kind.METAVAR
    if not all(map(find_spec, kind.PACKAGES)):
        note = f"requires a package: pip install 'rela[{kind.EXTRA}]'"
        return ListedPrior(source, syntax, False, note, [])
    cached = [path for path in _hub_cache_dir().glob("models--*") if source in path.name.lower()]
    there = f"; {len(cached)} in the Hugging Face cache" if kind.PACKAGES and cached else ""
    example = "" if syntax == kind.EXAMPLE else f", such as {kind.EXAMPLE}"
    return ListedPrior(source, syntax, True, f"{kind.ABOUT}{example}{there}", [])


def _checkpoints_dir() -> Path:
    """torch.hub's folder of weights, computed without importing torch."""
    home = os.environ.get("TORCH_HOME") or _cache_dir() / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _hub_cache_dir() -> Path:
    """huggingface_hub's folder of models."""
    home = Path(os.environ.get("HF_HOME") or _cache_dir() / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
