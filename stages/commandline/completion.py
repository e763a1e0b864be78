"""Completion of commands, options and names in bash, zsh and fish; light, because the user waits."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from rela.pipeline.files import read_regular
from rela.stages.commandline import everywhere

_Completion = Callable[[click.Context, click.Parameter, str], list[str] | list[CompletionItem[str]]]
_SETUP = {
    "bash": "rela completion bash >> ~/.bashrc",
    "zsh": "rela completion zsh >> ~/.zshrc",
    "fish": "rela completion fish > ~/.config/fish/completions/rela.fish",
}
_SOME_PRIORS = ("resnet18", "resnet50", "convnext_tiny", "vit_b_16", "vit_b_32")
_LARGEST_MANIFEST_BYTES = 10_000_000
_FILE_PREFIX = "file:"  # of a prior


@add_completion_class
class _Bash(BashComplete):
    """Also of names with colons and @, such as timm:resnet18, at which bash ends words."""

    source_template = BashComplete.source_template.replace(
        "COMP_CWORD=$COMP_CWORD", 'COMP_CWORD=$COMP_CWORD COMP_LINE="${COMP_LINE:0:COMP_POINT}"'
    ).replace(
        "    return 0\n",
        """\
    # bash completes what follows the last character at which it ends words
    local typed="${COMP_LINE:0:COMP_POINT}"
    typed="${typed##*[[:space:]]}"
    typed="${typed#--*=}"
    COMPREPLY=("${COMPREPLY[@]#"${typed%%"${typed##*[$COMP_WORDBREAKS]}"}"}")

    return 0
""",
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """The finished words, and the one to complete."""
        line = os.environ.get("COMP_LINE", "")
        if not line:  # a script of an earlier version
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = "" if not words or line[-1].isspace() else words.pop()
        return words[1:], incomplete


class _Shell(click.Choice[str]):
    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """In one line."""
        return f"Choose one of {', '.join(self.choices)}"


@click.command()
@click.argument("shell", metavar="SHELL", type=_Shell(tuple(_SETUP)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, data sets, priors and runs on Tab.

    \b
        rela completion bash >> ~/.bashrc
        rela completion zsh >> ~/.zshrc
        rela completion fish > ~/.config/fish/completions/rela.fish
    """
    made_for = get_completion_class(shell)
    assert made_for is not None
    # not click's `source`, which checks the version of bash first
    script = made_for(ctx.find_root().command, {}, "rela", "_RELA_COMPLETE")
    click.echo(script.source_template % script.source_vars())
    if sys.stdout.isatty():
        click.echo(f"# to keep it: {_SETUP[shell]}", err=True)


completion.params += everywhere.options()


def _of(find: Callable[[Path], Iterable[str]]) -> _Completion:
    """A click callback: the names of `find(workspace)` that begin with the typed text."""

    def complete(
        ctx: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[str] | list[CompletionItem[str]]:
        if incomplete.startswith(_FILE_PREFIX) and find is _priors:
            return [CompletionItem(incomplete, type="file")]
        known = ctx.find_root().params.get("workspace") or os.environ.get("RELA_WORKSPACE")
        try:
            found = sorted(set(find(Path(known or "./workspace"))))
        except OSError:
            return []
        return [n for n in found if n.startswith(incomplete) and n.isprintable() and " " not in n]

    return complete


def _names(parent: Path, mark: str = "manifest.json") -> list[str]:
    """Directories in `parent` that contain a file named `mark`."""
    return [path.parent.name for path in parent.glob(f"[!.]*/{mark}")]


def _unfinished_runs(workspace: Path) -> set[str]:
    runs = workspace / "runs"
    return set(_names(runs, "config.json")) - set(_names(runs))


def _identities(workspace: Path) -> list[Any]:
    """The priors of representations, and combinations of them."""
    from rela.priors.prior import identity_from_dict

    found = []
    for path in (workspace / "representations").glob("[!.]*/manifest.json"):
        try:
            manifest = json.loads(read_regular(path, _LARGEST_MANIFEST_BYTES))
            found.append(identity_from_dict(manifest["content"]["prior"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _embedded(workspace: Path) -> list[str]:
    """Names of priors as tables show them."""
    from rela.priors.names import shown_names

    return shown_names(_identities(workspace))


def _layers(workspace: Path) -> list[str]:
    """Those embedded, and those that many models have."""
    found = [
        part for each in _identities(workspace) for part in getattr(each, "components", (each,))
    ]
    return [*(each.layer for each in found), "pooled", "class", "patches"]


def _priors(workspace: Path) -> list[str]:
    from rela.models.own_code.plugins import PRIORS, plugin_names
    from rela.priors import KINDS

    embedded = [name for name in _embedded(workspace) if "+" not in name]
    prefixes = [prefix for prefix, kind in KINDS.items() if prefix and kind.METAVAR]
    plugins = plugin_names(PRIORS)
    return [*_names(workspace / "runs"), *embedded, *_SOME_PRIORS, *prefixes, *plugins]


def _models(workspace: Path) -> list[str]:
    from rela.models.own_code.plugins import MODELS, plugin_names

    return [*_SOME_PRIORS, "resnet18_small", "timm:", *plugin_names(MODELS)]


def _maps(workspace: Path) -> set[str]:
    representations = workspace / "representations"
    return set(_names(representations, "format.bin")) & set(_names(representations))


def _kept(workspace: Path) -> list[str]:
    kinds = ("datasets", "representations", "targets", "runs")
    return [name for kind in kinds for name in _names(workspace / kind)]


datasets = _of(lambda workspace: _names(workspace / "datasets"))
runs = _of(lambda workspace: _names(workspace / "runs"))
unfinished_runs = _of(_unfinished_runs)
artifacts = _of(_kept)
embedded_priors = _of(_embedded)
learned_priors = _of(lambda workspace: [*_embedded(workspace), "none", "random"])
priors = _of(_priors)
models = _of(_models)
layers = _of(_layers)
maps = _of(_maps)
