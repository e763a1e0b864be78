"""What every command takes, declared once.

The command line, the functions of `import rela`, the keys of recipes and the reference pages are made
from these classes. Light: `rela --help` imports it.
"""

import functools
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rela.errors import ChoiceError, RelaError, one_line
from rela.options import argument, option, option_words, part_of, with_needed_code
from rela.pipeline import Say
from rela.priors import KINDS, POOLED
from rela.stages.settings import (
    LAYER_HELP,
    ConvertSettings,
    DenseSettings,
    EmbedSettings,
    EvaluateSettings,
    ExportSettings,
    NeighborsSettings,
    PriorSettings,
    RankSettings,
    ReportSettings,
)
from rela.training.settings import TrainSettings

if TYPE_CHECKING:  # imports msgspec, which `rela --help` does without
    from rela.stages.workspace.workspace import Workspace

_P = ParamSpec("_P")
_Result = TypeVar("_Result")
_NAMES_OF_PRIORS = ", ".join(
    kind.PREFIX + kind.METAVAR if kind.PREFIX else f"A torchvision model ({kind.EXAMPLE})"
    for kind in KINDS.values()
    if kind.METAVAR or not kind.PREFIX
)


def log(message: str) -> None:
    """Give the message to the logger `rela`; print it in a notebook, which hides that by default."""
    import logging  # imported here to keep the command line light

    from rela.training.progress import in_notebook

    message = with_needed_code(message)
    logger = logging.getLogger("rela")
    if in_notebook() and not logger.isEnabledFor(logging.INFO):
        print("\n".join(map(one_line, message.split("\n"))))
    logger.info(message)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Request:
    """Fields of every request for Python callers; on the command line, `--workspace` is a global option.

    - `workspace`: its folder; RELA_WORKSPACE or ./workspace by default;
    - `say`: receives progress messages; the logger `rela` by default.
    """

    workspace: str | Path | None = None
    say: Say = log

    @property
    def place(self) -> "Workspace":
        """The workspace to work in."""
        return workspace_at(self.workspace)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OwnPrior(Request):
    """Fields for Python callers whose prior is a torch.nn.Module, see `rela.register`.

    - `preprocessing`: what the module expects to see;
    - `name`: its own, for `module:NAME`; that of its class by default.
    """

    preprocessing: Any = None
    name: str | None = None

    def __post_init__(self) -> None:
        from rela.models.own_code.networks import is_network, register

        given: Any = getattr(self, "prior", None)
        if is_network(given):
            named = register(given, self.name, self.preprocessing)
            for key, value in (("prior", named), ("name", None), ("preprocessing", None)):
                object.__setattr__(self, key, value)
        elif self.preprocessing is not None or self.name is not None:
            raise ChoiceError(
                "preprocessing and name describe a prior that is a module, not the name of one, which has "
                "image_size, resize, interpolation, mean and std"
            )


def _listed(names: str | Sequence[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def command_of(verb: str, request: "Request", **changed: Any) -> str:
    """`rela VERB` with the arguments and options of a request, some of them changed: what to type instead."""
    return one_line(shlex.join(words_of(verb, request, **changed)))


def words_of(verb: str, request: "Request", **changed: Any) -> list[str]:
    """The words of `command_of`."""
    values = {**vars(request), **changed}
    words = ["rela", verb]
    for described in fields(request):
        if "argument" in described.metadata and (value := values[described.name]):
            words += map(str, value if isinstance(value, list | tuple) else [value])
    return [*words, *option_words(type(request), values)]


def repeats_the_command(verb: str) -> Callable[[Callable[_P, _Result]], Callable[_P, _Result]]:
    """A job of (workspace, request, ...) whose errors end with the command to type instead, if known."""

    def decorate(job: Callable[_P, _Result]) -> Callable[_P, _Result]:
        @functools.wraps(job)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            try:
                return job(*args, **kwargs)
            except RelaError as error:
                request = args[1] if len(args) > 1 else kwargs["request"]
                if not error.instead or not isinstance(request, Request):
                    raise
                command = command_of(verb, request, **error.instead)
                raise type(error)(f"{error}: `{command}`") from error

        return called

    return decorate


def workspace_at(given: str | Path | None) -> "Workspace":
    """The workspace in folder `given`, or in RELA_WORKSPACE, or in ./workspace."""
    from rela.stages.workspace.workspace import Workspace

    if not isinstance(given, str | Path | None):
        raise ChoiceError(f"workspace = {one_line(repr(given))}: expected the path of a folder")
    return Workspace(Path(given or os.environ.get("RELA_WORKSPACE") or "./workspace"))


@dataclass(frozen=True, eq=False, repr=False)
class Convert(ConvertSettings, Request):
    """Images to convert to a data set."""

    source: str | Path = argument("SRC", kind=Path)
    more: str | Path | Sequence[str | Path] = argument("[SRC]...", (), kind=Path)
    name: str | None = option(None, "Name of the data set.", shown="that of SRC")
    workers: int | None = option(None, "Worker processes.", minimum=1, shown="all cores")
    replace: bool = option(False, "Replace the data set of that name, if it holds other images.")

    @property
    def sources(self) -> list[str | Path]:
        """All of them, which become one data set."""
        more = [self.more] if isinstance(self.more, str | Path) else self.more
        return [self.source, *more]


@dataclass(frozen=True, eq=False, repr=False)
class Embed(PriorSettings, EmbedSettings, DenseSettings, OwnPrior):
    """A data set to embed with a prior, or with several, which are combined."""

    dataset: str | Path | None = argument("[DATASET]", None, complete="datasets")
    prior: str | Sequence[str] = option(
        "",
        f"{_NAMES_OF_PRIORS}, or an earlier run, NAME or run:NAME. Several are embedded one by one and "
        "combined.",
        several=True,
        required=True,
        complete="priors",
    )
    layer: tuple[str, ...] = option(  # type: ignore[assignment]
        (POOLED,),
        f"{LAYER_HELP} Several are embedded one by one, in one forward pass.",
        shown=POOLED,
        complete="layers",
    )
    split: str = option("train", "Split to embed.", choices=("train", "val"))
    shard: str | None = option(
        None,
        "Embed only shard I of N, counted from 0.",
        metavar="I/N",
        shown="from torchrun or a SLURM array",
    )

    @property
    def priors(self) -> list[str]:
        """The names of the priors."""
        return _listed(self.prior)

    @property
    def by_layer(self) -> list[PriorSettings]:
        """What describes the priors, once for every layer."""
        layers = dict.fromkeys(_listed(self.layer))
        each: list[Any] = [replace(self, layer=layer) for layer in layers]  # type: ignore[arg-type]
        return [part_of(request, PriorSettings) for request in each]

    @property
    def part(self) -> tuple[int, int]:
        """(shard, number of shards) of this process."""
        from rela.distributed.ranks import parse_shard

        return parse_shard(self.shard)


@dataclass(frozen=True, eq=False, repr=False)
class Train(TrainSettings, Request):
    """A data set to train a model on."""

    dataset: str | None = argument("[DATASET]", None, complete="datasets")
    name: str | None = option(
        None, "Name of the run.", shown="DATASET-METHOD-NUMBER", complete="unfinished_runs"
    )
    embed: bool = option(False, "Embed the prior first if necessary.")
    verbose: bool = option(False, "Print every setting.")

    def __post_init__(self) -> None:
        from rela.models.own_code.networks import full_name, is_network, register

        given: Any = self.model
        if is_network(given) or (callable(given) and not isinstance(given, str)):
            object.__setattr__(self, "model", full_name(register(given)))


@dataclass(frozen=True, eq=False, repr=False)
class Evaluate(EvaluateSettings, PriorSettings, EmbedSettings, OwnPrior):
    """Runs, or a prior, to measure."""

    runs: str | Sequence[str] = argument("[RUN]...", (), complete="runs")
    all: bool = option(False, "Evaluate every finished run.")
    prior: str | None = option(None, "Evaluate a prior instead of a run.", complete="priors")
    dataset: str | None = option(
        None,
        "Data set to evaluate on.",
        shown="the run's own, or the only one",
        complete="datasets",
    )
    verbose: bool = option(
        False, "Print the settings of the probes and the files with the results."
    )
    dtype: str = field(default=EmbedSettings.dtype, init=False)
    crops: int = field(default=EmbedSettings.crops, init=False)
    precision: str = field(default=EmbedSettings.precision, init=False)

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return _listed(self.runs)


@dataclass(frozen=True, eq=False, repr=False)
class Export(ExportSettings, EmbedSettings, Request):
    """A run to write for other programs."""

    run: str | None = argument("[RUN]", None, complete="runs")
    crops: int = field(default=EmbedSettings.crops, init=False)
    precision: str = field(default=EmbedSettings.precision, init=False)


@dataclass(frozen=True, eq=False, repr=False)
class Neighbors(NeighborsSettings, PriorSettings, Request):
    """An image whose nearest neighbours to find; or duplicates or outliers of a data set."""

    image: str | Path | None = argument("[IMAGE]", None, kind=Path)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")


@dataclass(frozen=True, eq=False, repr=False)
class Report(ReportSettings, Request):
    """Runs to write a page about."""

    runs: str | Sequence[str] = argument("[RUN]...", (), complete="runs")
    output: str | Path = option(
        Path("rela-report"), "Folder for report.html and the figures.", metavar="DIRECTORY"
    )

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return _listed(self.runs)


@dataclass(frozen=True, eq=False, repr=False)
class Rank(RankSettings, Request):
    """A data set whose embedded priors to compare."""

    dataset: str | None = argument("[DATASET]", None, complete="datasets")


@dataclass(frozen=True, eq=False, repr=False)
class Remove(Request):
    """What to remove from the workspace."""

    things: str | Sequence[str] = argument("NAME...", (), complete="artifacts")
    dependents: bool = option(False, "Also remove what depends on it.")
    force: bool = option(False, "Keep what depends on it.")
    dry_run: bool = option(False, "Only print what would be removed.")

    @property
    def names(self) -> list[str]:
        """The names."""
        return _listed(self.things)
