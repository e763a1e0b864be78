"""Plugins: installed packages with entry points, which give priors and models of their own, `plugin:NAME`.

An entry point is a function. One in the group `rela.priors` returns a network and its preprocessing, one in
`rela.models` a network to train. Names are read from the metadata of packages; a package is imported only
when one of its networks is built.
"""

from importlib import metadata
from typing import Any

from rela.errors import ChoiceError, DataError, one_line
from rela.options import closest

PREFIX = "plugin:"
PRIORS, MODELS = "rela.priors", "rela.models"


def plugin_names(group: str) -> list[str]:
    """`plugin:NAME` of every entry point of a group, sorted; nothing is imported."""
    return sorted({f"{PREFIX}{point.name}" for point in metadata.entry_points(group=group)})


def package_of(group: str, name: str) -> str:
    """`PACKAGE==VERSION` that gives `plugin:NAME`; raises ChoiceError if none does, or several do."""
    distribution = _point(group, name).dist
    assert distribution is not None, "entry points of installed packages have one"
    # a plus joins priors
    return f"{distribution.name}=={distribution.version.replace('+', '-')}"


def identified(group: str, name: str) -> str:
    """`plugin:NAME#PACKAGE==VERSION`; raises ChoiceError for another version than the installed one."""
    bare, _, wanted = name.partition("#")
    if wanted and bare not in plugin_names(group):
        raise ChoiceError(f"{bare} is of {wanted}, which is not installed: `pip install {wanted}`")
    package = package_of(group, bare)
    if wanted and wanted != package:
        raise ChoiceError(
            f"{bare} is of {package} here, expected {wanted}; install that version: `pip install {wanted}`"
        )
    return f"{bare}#{package}"


def load_plugin(group: str, name: str) -> Any:
    """The function of `plugin:NAME` or `plugin:NAME#PACKAGE==VERSION`; imports its package.

    Raises ChoiceError if no installed package gives it, DataError if its import fails.
    """
    found = identified(group, name)
    try:
        return _point(group, found.partition("#")[0]).load()
    except Exception as error:  # code of others
        bare, _, package = found.partition("#")
        raise DataError(
            f"{bare} of {package} cannot be loaded ({type(error).__name__}: {one_line(str(error))}); repair "
            f"the package, or remove it: `pip uninstall {package.partition('==')[0]}`"
        ) from error


def _point(group: str, name: str) -> metadata.EntryPoint:
    bare = name.removeprefix(PREFIX)
    found = {
        (p.value, p.dist.name if p.dist else ""): p
        for p in metadata.entry_points(group=group, name=bare)
    }
    if len(found) > 1:
        packages = " and ".join(sorted(package for _, package in found))
        raise ChoiceError(f"{PREFIX}{bare} is given by {packages}; uninstall one of them")
    if not found:
        known = plugin_names(group)
        remedy = closest(name, known) if known else f"no installed package has entry points {group}"
        raise ChoiceError(f"no plugin {one_line(name)!r}; {remedy}")
    return next(iter(found.values()))
