"""The commands that reproduce a run, from its records."""

import re
import shlex
from dataclasses import fields, replace
from typing import Any

from rela.errors import RelaError
from rela.models.own_code.networks import MODULE_PREFIX
from rela.stages.conversion import request_of
from rela.stages.evaluate.groups import OF_PRIOR_ONLY
from rela.stages.priors.again import embed_commands
from rela.stages.priors.records import priors_of
from rela.stages.requests import words_of
from rela.stages.settings import EmbedSettings
from rela.stages.train.resolve import NO_METHOD, check_settings, resolve_hyperparameters
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run, train_words
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import OPTIMIZER_FIELDS, TrainSettings


def commands_for(workspace: Workspace, run: Run) -> list[str]:
    """`rela convert`, `rela embed` and `rela train` with every setting that is not the default.

    Resolved settings are explicit, so that changed defaults of a later version have no effect.
    """
    name = run.content.dataset
    train = train_words(name, run.content.prior, run.settings)
    try:
        dataset = workspace.dataset_of(name, run.dataset_fingerprint)
    except RelaError:
        return [shlex.join(train)]  # the data set is gone
    train[2] = dataset.name
    commands = [words_of("convert", request_of(dataset)), *_embed(workspace, run, dataset), train]
    calls = [_in_python(words) for words in commands]
    return [
        f"# in Python: {call}" if call else shlex.join(words)
        for call, words in zip(calls, commands, strict=True)
    ]


def counterpart(run: Run, prior: str) -> str:
    """`rela train` with the run's settings and another prior, or "none": what to compare it with.

    Values that the algorithm has by itself are left out.
    """
    defaults = {described.name: described.default for described in fields(TrainSettings)}
    settings = TrainSettings(**{name: getattr(run.settings, name) for name in defaults})
    of_prior: Any = {name: defaults[name] for name in OF_PRIOR_ONLY}
    settings = replace(settings, prior=prior, **of_prior)
    unset: dict[str, Any] = dict.fromkeys(OPTIMIZER_FIELDS)
    without = replace(settings, **unset)
    if settings.method == NO_METHOD:  # its rate was for no algorithm
        settings = replace(without, method=TrainSettings.method)
    else:
        own = resolve_hyperparameters(check_settings(without), labelled=True)
        if own.optimizer == settings.optimizer:
            is_own = {n: getattr(own, n) == getattr(settings, n) for n in OPTIMIZER_FIELDS}
            settings = replace(settings, **{n: v for n, v in unset.items() if is_own[n]})
    words = train_words(run.content.dataset, prior, settings)
    return _in_python(words) or shlex.join(words)


def _in_python(words: list[str]) -> str | None:
    """The call in place of a command that takes a network which only Python can give."""
    if not any(f" {flag} {MODULE_PREFIX}" in " ".join(words) for flag in _NETWORKS[words[1]]):
        return None
    given = [repr(words[2])]
    for flag, value in zip(words[3::2], words[4::2], strict=False):
        name = value.removeprefix(MODULE_PREFIX).partition("#")[0]
        is_network = value.startswith(MODULE_PREFIX) and flag in _NETWORKS[words[1]]
        shown = name if is_network else value if _NUMBER.fullmatch(value) else repr(value)
        given.append(f"{flag.removeprefix('--').replace('-', '_')}={shown}")
    return f"rela.{words[1]}({', '.join(given)})"


_NETWORKS = {"convert": (), "embed": ("--prior",), "train": ("--model",)}
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


def _embed(workspace: Workspace, run: Run, dataset: DataSet) -> list[list[str]]:
    key = run.settings.prior
    known = workspace.representations()
    made = next((a for a in known if a.fingerprint == key), None)
    if run.content.prior in (None, "random") or made is None:
        return []
    how = EmbedSettings(crops=made.content.crops, dtype=made.dtype, precision=made.precision)
    commands = embed_commands(workspace, dataset, priors_of(made), how)
    maps = [
        a.command for a in workspace.maps(made.images_sha256) if a.fingerprint == run.settings.maps
    ]
    with_vectors = [m for m in maps if m[: len(commands[-1])] == commands[-1]]
    return [*commands[: -1 if with_vectors else None], *maps]
