"""Options: dataclass fields that describe themselves, and keyword functions made from them.

An option is written once, with its type, default, range and help. The command line, Python and
recipes are made from it and share its checks.
"""

import difflib
import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from rela.errors import ChoiceError, one_line


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    shown: str | None = None,
    metavar: str | None = None,
    complete: str | None = None,
    several: bool = False,
    required: bool = False,
) -> Any:
    """A keyword of a dataclass, and an option of the command line.

    - `several`: can be repeated, like one with a tuple default; `shown`: the default in words;
    - `metavar`: its value in the help; `complete`: a name in stages.commandline.completion.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "shown": shown,
        "metavar": metavar,
        "complete": complete,
        "several": several or isinstance(default, tuple),
        "required": required,
    }
    return field(default=MISSING if required else default, metadata=metadata, kw_only=True)


def argument(
    metavar: str, default: Any = MISSING, *, kind: type = str, complete: str | None = None
) -> Any:
    """A positional field of a dataclass, and an argument of the command line; required without a default."""
    metadata = {"argument": metavar, "kind": kind, "complete": complete}
    return field(default=default, metadata=metadata)


def kind_of(described: "Field[Any]") -> Any:
    """The type of a value: `int | None` → int, `str | Path | None` → Path, `tuple[str, ...]` → tuple."""
    if "argument" in described.metadata:
        return described.metadata["kind"]
    declared: Any = described.type
    kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    return Path if Path in kinds else get_origin(kinds[0]) or kinds[0]


def flag_name(name: str) -> str:
    """`batch_size` → `--batch-size`."""
    return "--" + name.replace("_", "-")


def check_options(settings: Any) -> None:
    """Raise ChoiceError, naming the option and what it accepts, for a value out of range."""
    for described in fields(settings):
        value, rules = getattr(settings, described.name), described.metadata
        if value is None or "help" not in rules:
            continue
        chosen = tuple(value) if rules["several"] and isinstance(value, list | tuple) else (value,)
        wrong = (
            not all(_is_a(each, kind_of(described)) for each in chosen)
            or (rules["choices"] and not set(chosen) <= set(rules["choices"]))
            # `not >=` instead of `<`: comparisons with NaN are false
            or (rules["minimum"] is not None and not value >= rules["minimum"])
            or (rules["maximum"] is not None and not value <= rules["maximum"])
            or (rules["above"] is not None and not value > rules["above"])
            or (isinstance(value, float) and math.isinf(value))
        )
        if wrong:
            raise ChoiceError(misfit(described, value))


def _is_a(value: Any, kind: type) -> bool:
    """Whether the value has its option's type; an int counts as a float, a bool does not count as an int.

    A path may be a string, and each of several values is one.
    """
    if kind is float and isinstance(value, int):
        kind = int
    if kind is tuple or (kind is Path and isinstance(value, str)):
        kind = str
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def misfit(described: "Field[Any]", value: Any) -> str:
    """The message for a value that the option does not accept, on the command line and in Python."""
    return f"{flag_name(described.name)} {one_line(str(value))}: expected {_accepted(described)}"


def _accepted(described: "Field[Any]") -> str:
    rules = described.metadata
    if rules["choices"]:
        return "one of " + ", ".join(rules["choices"])
    if all(rules[limit] is None for limit in ("minimum", "above", "maximum")):
        named = {bool: "True or False", str: "a string", Path: "a path", int: "an integer"}
        return named.get(kind_of(described), "a number")
    limits = (("minimum", "at least"), ("above", "more than"), ("maximum", "at most"))
    words = (f"{word} {rules[key]:g}" for key, word in limits if rules[key] is not None)
    return "a number of " + " and ".join(words)


_P = ParamSpec("_P")
_Arguments = TypeVar("_Arguments")
_Result = TypeVar("_Result")
_Settings = TypeVar("_Settings")


def keyword_function(
    arguments: Callable[_P, _Arguments],
) -> Callable[[Callable[[_Arguments], _Result]], Callable[_P, _Result]]:
    """Turn a function of one request into a function of its fields as keywords.

    Signature and docstring list the options. It raises TypeError for an unknown or a missing option, and
    ChoiceError for a value out of range, both naming it.
    """

    def decorate(function: Callable[[_Arguments], _Result]) -> Callable[_P, _Result]:
        @functools.wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            _check_names(function.__name__, signature, args, kwargs)
            request = arguments(*args, **kwargs)
            check_options(request)
            return function(request)

        returned = inspect.signature(function).return_annotation
        signature = inspect.signature(arguments).replace(return_annotation=returned)
        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        called.__annotations__["return"] = returned
        called.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n\n{_options(arguments)}"
        return called

    return decorate


def _check_names(
    function: str, signature: inspect.Signature, args: tuple[Any, ...], given: dict[str, Any]
) -> None:
    """Raise TypeError, naming the function, for options that it does not have, or lacks."""
    for name in given:
        if name not in signature.parameters:
            meant = closest(name, signature.parameters, f"help(rela.{function}) lists its options")
            raise TypeError(f"{function}() has no option {name}; {meant}")
    try:
        signature.bind(*args, **given)
    except TypeError as error:
        raise TypeError(
            f"{function}(): {error}; help(rela.{function}) shows how to call it"
        ) from None


def closest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean X?`, or `otherwise`, or the list of known names."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    others = otherwise or f"known: {', '.join(known) or 'none'}"
    return f"did you mean {close[0]}?" if close else others


def part_of(request: Any, kind: type[_Settings]) -> _Settings:
    """The part of `request` that is a `kind`; strings for paths become paths, one or a list a tuple.

    Raises ChoiceError, naming the option and what it accepts, for a value out of range.
    """
    given: dict[str, Any] = {}
    for described in fields(kind):  # type: ignore[arg-type]
        value: Any = getattr(request, described.name, described.default)
        wanted = kind_of(described)
        if wanted is Path and isinstance(value, str):
            value = Path(value)
        elif wanted is tuple:
            value = (value,) if isinstance(value, str) else tuple(value)
        given[described.name] = value
    settings = kind(**given)
    check_options(settings)
    return settings


def option_words(kind: type, values: Mapping[str, Any], without: Collection[str] = ()) -> list[str]:
    """The words of a command line for values other than the defaults; None is left out."""
    words = []
    for described in fields(kind):
        value = values.get(described.name)
        is_default = value is None or value == described.default
        if is_default or described.name in without or "help" not in described.metadata:
            continue
        words.append(flag_name(described.name))
        if value is not True:
            words.append(str(value))
    return words


def _options(arguments: Any) -> str:
    lines = []
    for described in fields(arguments):
        if described.init and "help" in described.metadata:
            rules = described.metadata
            default = f"default: {rules['shown'] or repr(described.default)}"
            shown = "required" if rules["required"] else default
            text = f"- {described.name}: {rules['help']} [{shown}]"
            lines.append(textwrap.fill(text, 96, subsequent_indent="  ", break_long_words=False))
    return "\n".join(lines)
