"""Settings that describe themselves: a dataclass field with its help, choices and range.

The command line makes its options from them and libraries get the same checks, so a default is
written once.
"""

import math
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    kind: type | None = None,
    shown: str | None = None,
) -> Any:
    """A dataclass field; `kind` is its type where the default is None, `shown` that default in words.

    A field whose default is a tuple takes several of its choices.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "kind": kind or type(default),
        "shown": shown,
    }
    return field(default=default, metadata=metadata)


def flag_name(name: str) -> str:
    """`batch_size` → `--batch-size`."""
    return "--" + name.replace("_", "-")


def check_options(settings: Any) -> None:
    """Raise ChoiceError, naming the option and what it accepts, for a value out of range."""
    for described in fields(settings):
        value, rules = getattr(settings, described.name), described.metadata
        if value is None or not rules:
            continue
        chosen = value if isinstance(value, tuple) else (value,)
        wrong = (
            not _is_a(value, rules["kind"])
            or (rules["choices"] and not set(chosen) <= set(rules["choices"]))
            # not the other way round: nothing is less than "not a number", or more
            or (rules["minimum"] is not None and not value >= rules["minimum"])
            or (rules["maximum"] is not None and not value <= rules["maximum"])
            or (rules["above"] is not None and not value > rules["above"])
            or (isinstance(value, float) and math.isinf(value))
        )
        if wrong:
            raise ChoiceError(f"{flag_name(described.name)} {value}: expected {_accepted(rules)}")


def _is_a(value: Any, kind: type) -> bool:
    """Whether the value is of its option's type; whole numbers will do for others, truths will not."""
    if kind is float and isinstance(value, int):
        kind = int
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _accepted(rules: Any) -> str:
    if rules["choices"]:
        return "one of " + ", ".join(rules["choices"])
    if all(rules[limit] is None for limit in ("minimum", "above", "maximum")):
        named = {bool: "True or False", str: "a text", Path: "a path", int: "a whole number"}
        return named.get(rules["kind"], "a number")
    limits = (("minimum", "at least"), ("above", "more than"), ("maximum", "at most"))
    words = (f"{word} {rules[key]:g}" for key, word in limits if rules[key] is not None)
    return "a number of " + " and ".join(words)
