"""The prior that a request means: its identity, and a function that loads the model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from rela.errors import ChoiceError, DataError, one_line
from rela.models.own_code.networks import MODULE_PREFIX, registered_names
from rela.priors import (
    KINDS,
    POOLED,
    Prior,
    PriorIdentity,
    PriorRequest,
    as_requested,
    check_known,
    resolve,
)
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.checkpoint_file import TORCHSCRIPT
from rela.priors.earlier_run import load_backbone, read_identity
from rela.priors.names import (
    WEIGHTS_SUFFIXES,
    at_size,
    bare_name,
    from_displayed_name,
    is_called,
    shown_names,
    tells_more,
)
from rela.stages.priors.again import request_again
from rela.stages.priors.records import (
    known_identities,
    read_record,
    record_path,
    recorded_of_file,
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
    if request.name in registered_names():  # a record would need what only its code tells
        prior = resolve(request)
        return KnownPrior(prior.identity, prior.load)
    if not workspace.has_run(request.name.removeprefix(_RUN_PREFIX)):
        known = _known(workspace, request)
        if known is None:
            request = from_displayed_name(request)
            known = _known(workspace, request)
        if known is not None:
            given = _given(request, known)
            again = _again(workspace, request, known)
            if not given:
                return KnownPrior(known, lambda: _load_again(again, known))
            request = replace(again, **given)
    name = request.name.removeprefix(_RUN_PREFIX)
    if request.weights is not None and workspace.has_run(name):
        raise ChoiceError(f"--weights does not apply to the run {name}; remove it")
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
        return _called_so_before(workspace, request) or _unknown(workspace, request)
    try:
        prior = resolve(request)
    except ChoiceError as error:
        before = _called_so_before(workspace, request)
        if before is not None:
            return before
        raise _explained(workspace, request, error) from error
    if request.resizes and request.weights is None and not request.name.startswith(FILE_PREFIX):
        name = at_size(prior.identity.name, prior.identity.image_size)
        prior = replace(prior, identity=replace(prior.identity, name=name))
    write_record(path, request, prior)
    return KnownPrior(prior.identity, prior.load, note=prior.note)


def refuse_unknown(workspace: Workspace, request: PriorRequest) -> None:
    """Raise ChoiceError, with what was probably meant, if the name is that of no model; builds nothing."""
    if request.name.startswith(_RUN_PREFIX):
        workspace.run(request.name.removeprefix(_RUN_PREFIX))
        return
    request = from_displayed_name(request)
    try:
        check_known(request.name)
    except ChoiceError as error:
        raise _explained(workspace, request, error) from error


def _explained(workspace: Workspace, request: PriorRequest, error: ChoiceError) -> ChoiceError:
    """The error for a request that cannot be built, with what the workspace knows of its name."""
    file, name = _file_in(request), request.name
    changed = [] if file is None else recorded_of_file(workspace, file, changed=True)
    if name in {path.name for path in workspace.unfinished_runs()}:
        workspace.run(name)  # raises: it is not finished
    if workspace.has_dataset(name):
        return ChoiceError(
            f"--prior {name} is a data set; expected a model, such as resnet18, or a run"
        )
    if changed:
        return ChoiceError(
            f"{file} has other weights than when it was used here; name their architecture, which "
            f"was --arch {changed[0].arch}"
        )
    runs = [run.name for run in workspace.runs()]
    if close := get_close_matches(name.removeprefix(_RUN_PREFIX), runs, n=1, cutoff=0.8):
        return ChoiceError(f"no model and no run {one_line(name)!r}; did you mean {close[0]}?")
    run_names = ", ".join(runs)
    if run_names and ":" not in name:
        full_stop = "" if str(error).endswith("?") else "."
        return ChoiceError(f"{error}{full_stop} Runs of this workspace: {run_names}")
    return error


def _given(request: PriorRequest, known: PriorIdentity) -> dict[str, Any]:
    """What the request asks for beside the name, and otherwise than the known prior."""
    given = {n: v for n in _OPTIONS if (v := getattr(request, n)) != getattr(_PLAIN, n)}
    if _file_in(request) is not None:
        given["layer"] = request.layer
        if request.layer == known.layer:
            del given["layer"]
    if request.resizes and request.image_size != known.image_size:
        given |= {"image_size": request.image_size, "resizes": True}
    return given


def _again(workspace: Workspace, request: PriorRequest, known: PriorIdentity) -> PriorRequest:
    """The request that a known prior was made with; its weights are in the file that `request` names."""
    again = replace(request_again(workspace, (known, None)), trust_code=request.trust_code)
    if _file_in(request) is None:
        return again
    if again.weights is not None:
        return replace(again, weights=_file_in(request))
    return replace(again, name=request.name)


def _file_in(request: PriorRequest) -> Path | None:
    """The file of a request that does not say the architecture."""
    is_bare = (
        request.name.startswith(FILE_PREFIX) and request.arch is None and request.weights is None
    )
    return Path(request.name.removeprefix(FILE_PREFIX)) if is_bare else None


def _known(workspace: Workspace, request: PriorRequest) -> PriorIdentity | None:
    """The prior of this workspace that tables call so, unless its plain name means a model by itself.

    A file is also known by its path and by its content. Raises ChoiceError with names that tell several
    apart.
    """
    found: dict[str, PriorIdentity] = {}
    file = _file_in(request)
    recorded = [] if file is None else recorded_of_file(workspace, file)
    of_file = [each for each in recorded if each.arch != TORCHSCRIPT]  # trust is not remembered
    for identity in known_identities(workspace):
        is_meant = is_called(identity, request.name) and (
            tells_more(request.name) or _needs_options(workspace, identity)
        )
        if is_meant or identity in of_file:
            found.setdefault(str(identity.key()), identity)
    several = list(found.values())
    if file is not None:
        by_layer = {str(replace(each, layer=POOLED).key()): each for each in several}
        several = [e for e in several if e.layer == request.layer] or list(by_layer.values())
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
    bare = bare_name(identity).removesuffix(f"@{identity.layer}")
    if bare.startswith(MODULE_PREFIX):  # its code, which is not here
        return True
    return bare != identity.arch and (":" not in bare or bare.startswith("timm:"))


def _called_so_before(workspace: Workspace, request: PriorRequest) -> KnownPrior | None:
    """The prior by the name that earlier versions gave to a file: without its suffix."""
    if request.name in KINDS[""].names():
        return None
    for identity in known_identities(workspace):
        suffix = Path(identity.name).suffix
        if identity.name == request.name + suffix and suffix in WEIGHTS_SUFFIXES:
            return identify(workspace, replace(request, name=identity.name), may_build=False)
    return None


class UnusedPriorError(ChoiceError):
    """A prior that is not known here, and may not be built."""


def _unknown(workspace: Workspace, request: PriorRequest) -> NoReturn:
    raise UnusedPriorError(f"prior {request.name} has not been used in {workspace.root} yet")


def _load_again(request: PriorRequest, identity: PriorIdentity) -> Any:
    """Build a known prior; raises UnavailableError without its weights, DataError if they have changed."""
    try:
        prior = resolve(request)
    except ChoiceError as error:
        if identity.arch.startswith(MODULE_PREFIX):
            raise
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
