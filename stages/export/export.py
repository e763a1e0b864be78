"""A finished run, or an embedded prior → files for other programs: the backbone, or features."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.models.preprocessing import Preprocessing
from rela.options import option_words, part_of
from rela.pipeline import Say
from rela.priors.earlier_run import read_identity
from rela.priors.prior import Combination
from rela.result import Result
from rela.stages import requests
from rela.stages.display import human_bytes, next_command
from rela.stages.export.destination import destination
from rela.stages.export.features import features_of_run, write_features
from rela.stages.export.weights import describe_preprocessing, export_weights
from rela.stages.priors.find import cached_splits, shown_name
from rela.stages.settings import FEATURE_FORMATS, EmbedSettings, ExportSettings
from rela.stages.snippets import pasteable
from rela.stages.train.snapshot import run_or_snapshot
from rela.stages.workspace.workspace import Workspace


@dataclass(frozen=True, repr=False)
class ExportResult(Result):
    """The file or folder, its size and the Python that loads it.

    Of a run, or of the features of a prior for `dataset`; `preprocessing`: None for a combination of priors.
    """

    path: Path
    run: str | None
    prior: str | None
    dataset: str | None
    to: str
    num_bytes: int
    preprocessing: dict[str, Any] | None
    snippet: str
    seconds: float

    def shown(self) -> dict[str, Any]:
        """What was written where."""
        size = human_bytes(self.num_bytes)
        return {
            "run": self.run, "prior": self.prior, "to": self.to, "size": size, "path": self.path
        }  # fmt: skip


@requests.repeats_the_command("export")
def export(workspace: Workspace, request: requests.Export, say: Say = print) -> ExportResult:
    """Write the backbone of a run, or features, for the program that `request.to` names.

    What is written appears whole or not at all. Raises ChoiceError if the format does not fit the run's
    model, listing those that do, or if the file exists and `settings.force` is not set.
    """
    start = time.perf_counter()
    settings, embedding = part_of(request, ExportSettings), part_of(request, EmbedSettings)
    _refuse_unused(request, settings)
    if settings.prior is not None:
        run = None
        dataset = workspace.dataset(settings.dataset, "--dataset")
        found = cached_splits(workspace, dataset, settings.prior, say)
        first = next(iter(found.values()))
        name, prior = shown_name(first), first.prior
        known = None if isinstance(prior, Combination) else prior.preprocessing.as_dict()
        path = destination(re.sub(r"[^\w.@+-]+", "-", f"{dataset.name}-{name}"), settings)
        description = {"prior": name, **({"preprocessing": known} if known else {})}
        snippet, num_bytes = write_features(dataset, found, description, path, settings)
    else:
        trained = run_or_snapshot(workspace, request.run, say)
        run, name, dataset = trained.name, None, None
        path = destination(run, settings)
        identity = read_identity(trained.path)
        known = identity.preprocessing.as_dict()
        if settings.to in FEATURE_FORMATS:
            features = features_of_run(workspace, trained, identity, settings, embedding, say)
            snippet, num_bytes = write_features(*features, path, settings)
        else:
            snippet, num_bytes = export_weights(trained, identity, path, settings)
    return ExportResult(
        path=path,
        run=run,
        prior=name,
        dataset=None if dataset is None else dataset.name,
        to=settings.to,
        num_bytes=num_bytes,
        preprocessing=known,
        snippet=snippet,
        seconds=time.perf_counter() - start,
    )


def _refuse_unused(request: requests.Export, settings: ExportSettings) -> None:
    """Raise ChoiceError for what the other options leave without effect."""
    formats = f"{', '.join(FEATURE_FORMATS[:-1])} or {FEATURE_FORMATS[-1]}"
    if settings.prior is not None and request.run is not None:
        raise ChoiceError(
            f"found RUN {request.run} and --prior {settings.prior}; expected one of them"
        )
    for option in ("dataset", "prior"):
        if getattr(settings, option) is not None and settings.to not in FEATURE_FORMATS:
            raise ChoiceError(
                f"--{option} requires --to {formats}, found {settings.to}; remove it, or choose one of these"
            )
    words = option_words(EmbedSettings, vars(request))
    unused = [word for word in words if word.startswith("--")]
    if unused and settings.prior is not None:
        raise ChoiceError(f"--prior takes features that are cached; remove {', '.join(unused)}")
    if unused and settings.to not in FEATURE_FORMATS:
        raise ChoiceError(
            f"{', '.join(unused)} requires --to {formats}, found {settings.to}; remove it"
        )


def format_result(result: ExportResult) -> str:
    """The path, the preprocessing and the code that loads the file."""
    what = "features" if result.to in FEATURE_FORMATS else "backbone"
    of = f"run {result.run}" if result.prior is None else f"prior {result.prior}"
    lines = [f"{what} of {of}: {result.path}, {human_bytes(result.num_bytes)}"]
    if result.preprocessing is not None:
        wants = describe_preprocessing(Preprocessing.from_dict(result.preprocessing))
        lines.append(f"preprocessing: {wants}")
    if result.to == "faiss":
        lines.append(
            "index: IndexFlatIP of features scaled to length 1; scale queries alike, then inner products are "
            "cosines"
        )
    lines.append(pasteable("load it with:", result.snippet))
    lines.append(
        next_command(
            "neighbors", "--duplicates", "--dataset", result.dataset, "--prior", result.prior
        )
        if result.dataset is not None and result.prior is not None
        else next_command("eval", str(result.run))
    )
    return "\n".join(lines)
