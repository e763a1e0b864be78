"""Functions that take the fields of a dataclass as keyword arguments, as static type checkers see too.

So an option of `stages.settings` is written once: with its type, default, range and help.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rela.options import check_options

_P = ParamSpec("_P")
_Arguments = TypeVar("_Arguments")
_Result = TypeVar("_Result")
_Settings = TypeVar("_Settings")


def takes(
    arguments: Callable[_P, _Arguments],
) -> Callable[[Callable[[_Arguments], _Result]], Callable[_P, _Result]]:
    """Make a function of one `arguments` object a function of what such an object is made from.

    Signature and docstring list the options.
    """

    def decorate(function: Callable[[_Arguments], _Result]) -> Callable[_P, _Result]:
        @functools.wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            return function(arguments(*args, **kwargs))

        returned = inspect.signature(function).return_annotation
        signature = inspect.signature(arguments).replace(return_annotation=returned)
        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        called.__annotations__["return"] = returned
        called.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n\n{_options(arguments)}"
        return called

    return decorate


def settings_of(arguments: Any, kind: type[_Settings]) -> _Settings:
    """The part of `arguments` that is a `kind`, its texts for paths made paths.

    Raises ChoiceError, naming the option and what it accepts, for a value out of range.
    """
    given: dict[str, Any] = {}
    for described in fields(kind):  # type: ignore[arg-type]
        value: Any = getattr(arguments, described.name, described.default)
        is_path = described.metadata["kind"] is Path and isinstance(value, str)
        given[described.name] = Path(value) if is_path else value
    settings = kind(**given)
    check_options(settings)
    return settings


def _options(arguments: Any) -> str:
    lines = []
    for described in fields(arguments):
        if described.init and "help" in described.metadata:
            shown = described.metadata.get("shown") or repr(described.default)
            text = f"- {described.name}: {described.metadata['help']} [default: {shown}]"
            lines.append(textwrap.fill(text, 96, subsequent_indent="  ", break_long_words=False))
    return "\n".join(lines)
