"""The prior that a request means: its identity, and a function that loads the model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, DataError
from rela.priors import Prior, PriorIdentity, PriorRequest, as_requested, resolve
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.earlier_run import load_backbone, read_identity
from rela.priors.names import from_displayed_name, is_called, shown_names, tells_more
from rela.priors.prior import Combination
from rela.stages.priors.again import request_again
from rela.stages.priors.records import (
    read_record,
    record_path,
    recorded_identities,
    recorded_request,
    write_record,
)
from rela.stages.workspace.workspace import Workspace

_RUN_PREFIX = "run:"
_PLAIN = PriorRequest("")
# what a request says beside the name; a data set's own image size is not the user's choice
_OPTIONS = ("weights", "seed", "arch", "layer", "encoder", "resize", "interpolation", "mean", "std")


@dataclass(frozen=True)
class KnownPrior:
    """An identity, and a function that loads the model.

    `note` describes what was found in the weights file.
    """

    identity: PriorIdentity
    load: Callable[[], Any]
    run: str | None = None
    note: str = ""


def identify(workspace: Workspace, request: PriorRequest, may_build: bool = True) -> KnownPrior:
    """The prior for `request`: an earlier run of this workspace, a known prior, or a model by name.

    Without `may_build` nothing is built, downloaded or written, and a prior without a record raises
    ChoiceError.
    """
    if not workspace.has_run(request.name.removeprefix(_RUN_PREFIX)):
        known = _known(workspace, request)
        if known is None:
            request = from_displayed_name(request)
            known = _known(workspace, request)
        if known is not None:
            given = {n: v for n in _OPTIONS if (v := getattr(request, n)) != getattr(_PLAIN, n)}
            if request.resizes and request.image_size != known.image_size:
                given |= {"image_size": request.image_size, "resizes": True}
            if not given:
                return KnownPrior(known, lambda: _load_known(workspace, known, request.trust_code))
            again = request_again(workspace, (known, None))
            request = replace(again, **given, trust_code=request.trust_code)
    name = request.name.removeprefix(_RUN_PREFIX)
    is_run = workspace.has_run(name) and request.weights is None
    if is_run or request.name.startswith(_RUN_PREFIX):
        run = workspace.run(name)
        if request.arch or request.seed or request.trust_code or request.encoder:
            raise ChoiceError(
                f"--arch, --encoder, --seed and --trust-code do not apply to the run {run.name}; remove them"
            )
        identity = read_identity(run.path)
        if request.resizes and request.image_size != identity.image_size:
            size = f"{identity.image_size}×{identity.image_size}"
            raise ChoiceError(
                f"the run {run.name} takes images of {size} pixels; remove --image-size"
            )
        found = Prior(identity, lambda: load_backbone(run.path, identity))
        found = as_requested(found, request)
        return KnownPrior(found.identity, found.load, run.name)
    path = record_path(workspace, request)
    recorded = read_record(path)
    if recorded is not None:
        identity, note = recorded
        return KnownPrior(identity, lambda: _load_recorded(request, identity, path), note=note)
    if not may_build:
        raise ChoiceError(f"prior {request.name} has not been used in {workspace.root} yet")
    try:
        prior = resolve(request)
    except ChoiceError as error:
        run_names = ", ".join(run.name for run in workspace.runs())
        if run_names and ":" not in request.name:
            full_stop = "" if str(error).endswith("?") else "."
            raise ChoiceError(f"{error}{full_stop} Runs of this workspace: {run_names}") from error
        raise
    write_record(path, request, prior)
    return KnownPrior(prior.identity, prior.load, note=prior.note)


def _known(workspace: Workspace, request: PriorRequest) -> PriorIdentity | None:
    """The prior of this workspace that tables call so, unless its plain name means a model by itself.

    Raises ChoiceError with names that tell several apart.
    """
    found: dict[str, PriorIdentity] = {}
    for identity in (*_embedded(workspace), *recorded_identities(workspace)):
        if is_called(identity, request.name) and (
            tells_more(request.name) or _needs_options(workspace, identity)
        ):
            found.setdefault(str(identity.key()), identity)
    several = list(found.values())
    own_size = [each for each in several if each.image_size == request.image_size]
    several = own_size if len(own_size) == 1 else several
    if len(several) > 1:
        raise ChoiceError(
            f"{len(several)} priors are called {request.name}; choose one with --prior: "
            f"{', '.join(shown_names(several))}"
        )
    return several[0] if several else None


def _needs_options(workspace: Workspace, identity: PriorIdentity) -> bool:
    """Whether the prior was named with more than a name, its layer, its seed and its size."""
    asked = recorded_request(workspace, identity)
    if asked is not None:
        return asked.weights is not None or asked.name.startswith(FILE_PREFIX)
    bare = identity.name.removesuffix(f"@{identity.layer}")
    return bare != identity.arch and (":" not in bare or bare.startswith("timm:"))


def _embedded(workspace: Workspace) -> list[PriorIdentity]:
    """The priors of all representations but runs."""
    found: list[PriorIdentity] = []
    for made in workspace.representations():
        if isinstance(made.prior, Combination):
            runs = [component.run for component in made.content.components]
            several = zip(made.prior.components, runs, strict=True)
            found += [identity for identity, run in several if run is None]
        elif made.content.run is None:
            found.append(made.prior)
    return found


def _load_known(workspace: Workspace, identity: PriorIdentity, trust_code: bool) -> Any:
    """Build a known prior; raises UnavailableError without its weights, DataError if they have changed."""
    request = request_again(workspace, (identity, None))
    try:
        prior = resolve(replace(request, trust_code=trust_code))
    except ChoiceError as error:
        raise ChoiceError(
            f"prior {identity.name} is not known by more than its name ({error}); give --prior, --weights, "
            "--arch, --seed and --layer as `rela embed` had them"
        ) from error
    if prior.identity.key() != identity.key():
        raise DataError(
            f"prior {identity.name} is another model by now; name it as `rela embed` had it"
        )
    return prior.load()


def _load_recorded(request: PriorRequest, recorded: PriorIdentity, path: Path) -> Any:
    """Build the prior; raise DataError and delete the record if it is not the recorded one."""
    prior = resolve(request)
    if prior.identity.key() != recorded.key():
        path.unlink(missing_ok=True)
        raise DataError(
            f"the weights of {request.name} were replaced without a new modification time; their record "
            "is deleted, run the same command again"
        )
    return prior.load()
