"""The form that JSON from a disk must have before anything relies on it."""

import typing
from dataclasses import fields
from typing import Any

Form = Any
_LARGEST = 1 << 63


def misfit(value: Any, form: Form, where: str = "it") -> str:
    """Where `value` has another form, in words; empty if it has this one.

    A form is a type (a float may be whole, a bool is no number, and no
    number is 2⁶³ or more), a tuple of forms any of
    which will do, `[form]` for a list, `{...: form}` for an object with any names, and `{"name": form}`
    for one with at least these names, of which `"name?"` may be missing.
    """
    if isinstance(form, tuple):
        found = [misfit(value, one, where) for one in form]
        return "" if "" in found else found[0]
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        return _first(misfit(item, form[0], f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{where} is no object"
        if ... in form:
            return _first(
                misfit(item, form[...], f"{where}.{name}") for name, item in value.items()
            )
        missing = [name for name in form if not name.endswith("?") and name not in value]
        if missing:
            return f"{where} has no {missing[0]}"
        return _first(
            misfit(value[name], of_name, f"{where}.{name}")
            for name, of_name in ((given.removesuffix("?"), form[given]) for given in form)
            if name in value
        )
    fits = type(value) is form or (form is float and type(value) is int)
    if fits and form in (int, float):
        fits = abs(value) < _LARGEST
    return "" if fits else f"{where} is no {form.__name__}"


def settings_form(of: type) -> dict[str, Form]:
    """The form of a settings class's `asdict`; every name may be missing."""
    hints = typing.get_type_hints(of)
    return {f"{f.name}?": typing.get_args(hints[f.name]) or hints[f.name] for f in fields(of)}


def _first(problems: typing.Iterable[str]) -> str:
    return next((problem for problem in problems if problem), "")
