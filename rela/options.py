"""Options: dataclass fields that describe themselves, and keyword functions made from them.

An option is written once, with its type, default, range and help. The command line, Python and
recipes are made from it and share its checks.
"""

import contextlib
import difflib
import functools
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from rela.errors import ChoiceError, RelaError, one_line
from rela.pipeline.errors import PipelineError


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
        if "argument" in rules and not _fits_argument(described, value):
            raise ChoiceError(_no_name(described, value))
        if "help" not in rules or (value is None and _may_be_none(described)):
            continue
        is_list = rules["several"] and isinstance(value, list | tuple)
        chosen = tuple(value) if is_list else (value,)
        if not chosen or not all(_is_a(each, kind_of(described)) for each in chosen):
            raise ChoiceError(misfit(described, value, of_other_type=True))
        if value == "" != described.default:
            raise ChoiceError(empty(flag_name(described.name)))
        wrong = (
            (rules["choices"] and not set(chosen) <= set(rules["choices"]))
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


def _may_be_none(described: "Field[Any]") -> bool:
    return described.default is None or NoneType in get_args(described.type)


def _fits_argument(described: "Field[Any]", value: Any) -> bool:
    """Whether a positional value is a name, a path where one is expected, or a list of names."""
    if isinstance(value, list | tuple):
        kinds = (str, Path) if described.metadata["kind"] is Path else str
        return described.default == () and all(isinstance(each, kinds) for each in value)
    if isinstance(value, Path):
        return Path in get_args(described.type)
    return isinstance(value, str) or (value is None and described.default is None)


def _no_name(described: "Field[Any]", value: Any) -> str:
    """The message for a positional value of another type, with its name if it has one."""
    name = getattr(getattr(value, "artifact", value), "name", None)
    meant = f", such as {name!r}" if isinstance(name, str) else ""
    expected = "a path" if described.metadata["kind"] is Path else f"a name{meant}"
    return f"{described.name} = {_with_type(value)}: expected {expected}"


def misfit(described: "Field[Any]", value: Any, of_other_type: bool = False) -> str:
    """The message for a value that the option does not accept, on the command line and in Python."""
    shown = _with_type(value) if of_other_type else one_line(str(value))
    meant = _meant(described, str(value))
    accepted = _accepted(described)
    return f"{flag_name(described.name)} {shown}: expected {accepted}{meant and f'; {meant}'}"


def empty(flag: str, required: bool = False) -> str:
    """The message for an option with an empty text, such as a variable of the shell that is not set."""
    return f"{flag} is empty; give a value{'' if required else ', or leave it out'}"


def _with_type(value: Any) -> str:
    return f"{textwrap.shorten(one_line(repr(value)), 80)} ({type(value).__name__})"


def _accepted(described: "Field[Any]") -> str:
    rules, kind = described.metadata, kind_of(described)
    if rules["choices"]:
        return "one of " + ", ".join(rules["choices"])
    named = {bool: "True or False", str: "a string", Path: "a path", int: "an integer"}
    number = named.get(kind, "a number")
    limits = (("minimum", "at least"), ("above", "more than"), ("maximum", "at most"))
    words = (f"{word} {rules[key]:g}" for key, word in limits if rules[key] is not None)
    return " of ".join(filter(None, (number, " and ".join(words))))


def _meant(described: "Field[Any]", text: str) -> str:
    """What was probably meant by a text that does not fit; empty if that is unknown."""
    rules, parts, flag = described.metadata, text.split(","), flag_name(described.name)
    if rules["several"] and len(parts) > 1 and set(parts) <= set(rules["choices"]):
        return "give each by itself: " + " ".join(f"{flag} {part}" for part in parts)
    if rules["choices"]:
        close = difflib.get_close_matches(text.lower(), rules["choices"], n=1)
        return f"did you mean {close[0]}?" if close else ""
    if kind_of(described) not in (int, float):
        return ""
    if len(parts) > 1 and all(_number(part) is not None for part in parts):
        return "one value at a time; recipes sweep over several (docs/recipes.md)"
    number, top = _number(text.removesuffix("%")), rules["maximum"]
    if kind_of(described) is float and top is not None and top <= 1 < (number or 0) <= 100:
        return f"{number:g} % is {(number or 0) / 100:g}"
    if kind_of(described) is int:
        sides = re.fullmatch(r"(\d+)[x×*]\1", text)
        number = float(sides[1]) if sides else number
        if number is not None and number.is_integer() and str(int(number)) != text:
            return f"did you mean {number:.0f}?"
    return ""


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# a command, a flag at the beginning with its value, or a flag
_FLAGS = re.compile(r"(`[^`]*`)|(?:^|(?<=: ))--([a-z-]+) (.+?)(?=: expected )|--([a-z-]+)")
# a command with a network that only Python gives, of which the shell knows nothing
_OF_OWN_CODE = re.compile(r"`rela [^`]*\bmodule:([\w.-]+)[^`]*`(?! \(after)")
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
            plain: Any = {name: _of_numpy(value) for name, value in kwargs.items()}
            with _arguments_named(signature):
                request = arguments(*args, **_telling(plain))
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


def checked_function(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
    """The function, with errors as those of a `keyword_function` for its names and types of values."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
        _check_names(function.__name__, signature, args, kwargs)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kinds = _kinds(signature.parameters[name].annotation)
            several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            values = value if several else (value,)
            plain = tuple(map(_of_numpy, values))
            if wrong := [v for v in plain if kinds and not any(_is_a(v, kind) for kind in kinds)]:
                expected = " or ".join("None" if k is NoneType else k.__name__ for k in kinds)
                raise ChoiceError(
                    f"{function.__name__}(): {name} = {_with_type(wrong[0])}: expected {expected}"
                )
            bound.arguments[name] = plain if several else plain[0]
        with _arguments_named(signature):
            return function(*bound.args, **_telling(bound.kwargs))

    return called


def with_needed_code(text: str) -> str:
    """A message, in which what a command needs follows it, if that is code of the caller's own."""
    return _OF_OWN_CODE.sub(r"\g<0> (after rela.register(NETWORK, name='\g<1>') in Python)", text)


def _telling(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with a `say` that is told what commands need."""
    say = arguments.get("say")
    if not callable(say):
        return arguments
    return {**arguments, "say": lambda message: say(with_needed_code(message))}


@contextlib.contextmanager
def _arguments_named(signature: inspect.Signature) -> Iterator[None]:
    """Errors name the arguments of the function, not flags; what is in backticks is for a shell."""

    def in_python(found: re.Match[str]) -> str:
        command, with_value, value, alone = found.groups()
        parameter = signature.parameters.get((with_value or alone or "").replace("-", "_"))
        if command is not None or parameter is None:
            return found[0]
        if value is not None:
            return f"{parameter.name} = {value}"
        return parameter.name + ("=True" if parameter.annotation is bool else "")

    try:
        yield
    except (RelaError, PipelineError) as error:
        error.args = (with_needed_code(_FLAGS.sub(in_python, str(error))),)
        raise


def _kinds(annotation: Any) -> list[type]:
    """The types of a parameter that can be checked; none for others, such as functions."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    known = {str, Path, int, float, bool, NoneType}
    return list(kinds) if known.issuperset(kinds) else []


def _of_numpy(value: Any) -> Any:
    """A number of NumPy as one of Python, which JSON can hold; anything else unchanged."""
    if isinstance(value, Integral) and not isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, int) else value


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
        for each in value if isinstance(value, list | tuple) else (value,):
            words += [flag_name(described.name)] + ([] if each is True else [str(each)])
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
