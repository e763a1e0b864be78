"""A recipe's text → its tables in the order of the file, with every `{variable}` filled in."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rela
from rela.errors import ChoiceError, UnavailableError
from rela.options import closest
from rela.pipeline import Say
from rela.pipeline.files import regular_file
from rela.priors.names import WEIGHTS_SUFFIXES

STAGES = ("convert", "embed", "train", "eval")
_VARIABLES = "variables"
_HEADER = re.compile(r"^\s*\[\[\s*([A-Za-z0-9_-]+)\s*\]\]")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PATH_KEYS = ("source", "image_root", "weights", "voc")
FILE_PREFIX = "file:"  # of a prior


@dataclass(frozen=True)
class Table:
    """One `[[stage]]` of a recipe; `where` names file, line and table in messages."""

    stage: str
    where: str
    values: dict[str, Any]


def recipe_file(given: Path, say: Say) -> Path:
    """The file of a recipe: `given`, or one that is installed with rela, by its name."""
    installed = _installed()
    if given.name != str(given) or given.exists() or given.stem not in installed:
        return given
    say(f"recipe {installed[given.stem]}")
    return installed[given.stem]


def _installed() -> dict[str, Path]:
    return {path.stem: path for path in sorted((Path(rela.__file__).parent / "recipes").glob("*"))}


def read_tables(path: Path, given: Mapping[str, str]) -> list[Table]:
    """The tables of the recipe at `path`; `given` overrides the defaults in [variables].

    Relative paths become absolute: from the recipe's folder, or from the working directory if they
    begin with a given variable. Raises ChoiceError for a file that is not a recipe.
    """
    text = _read(path)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for huge numbers and deep nesting
        raise ChoiceError(f"{path} is not TOML: {error}") from error
    defaults = document.pop(_VARIABLES, {})
    if not isinstance(defaults, dict):
        raise ChoiceError(f"{path}: {_VARIABLES} must be a table, [{_VARIABLES}]")
    wrong = [name for name, value in defaults.items() if not isinstance(value, str)]
    if wrong:
        raise ChoiceError(
            f"{path}, [variables]: {wrong[0]} = {defaults[wrong[0]]!r} is not a string"
        )
    for name in document:
        if name not in STAGES:
            known = [*(f"[[{stage}]]" for stage in STAGES), f"[{_VARIABLES}]"]
            if not isinstance(document[name], list | dict):
                raise ChoiceError(
                    f"{path}: {name!r} is in no table; write it below a line such as [[train]]"
                )
            raise ChoiceError(f"{path}: unknown table {name!r}; expected one of {', '.join(known)}")
    fill = _Filler(path, {**defaults, **given}, given)
    tables = []
    rest = {stage: iter(_list_of_tables(path, stage, found)) for stage, found in document.items()}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header and header[1] in rest:
            where = f"{path}, line {number}, [[{header[1]}]]"
            values = next(rest[header[1]], None)
            if values is None:
                raise ChoiceError(f"{where} is inside a string; break that line differently")
            tables.append(Table(header[1], where, fill.table(where, values)))
    if any(next(remaining, None) is not None for remaining in rest.values()):
        raise ChoiceError(f"{path}: begin every job with its own line, such as [[train]]")
    if not tables:
        raise ChoiceError(f"{path} has no jobs; begin one with a line such as [[train]]")
    fill.refuse_unused(defaults)
    return tables


def _read(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", opener=regular_file) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ChoiceError(f"{path} is not TOML: it is not UTF-8") from error
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be read: {error.strerror}. Recipes that come with rela: "
            f"{', '.join(_installed())}, as in `rela run small --set images=path/to/images`"
        ) from error


def _list_of_tables(path: Path, stage: str, found: Any) -> list[dict[str, Any]]:
    if not (isinstance(found, list) and all(isinstance(table, dict) for table in found)):
        raise ChoiceError(f"{path}: write [[{stage}]], with two brackets")
    return found


class _Filler:
    """Fills placeholders in strings, and remembers which variables were used."""

    def __init__(self, path: Path, values: dict[str, str], given: Mapping[str, str]) -> None:
        self._path, self._values, self._given = path, values, given
        self._used: set[str] = set()

    def table(self, where: str, values: dict[str, Any]) -> dict[str, Any]:
        """Fill every string of a table, also in lists."""
        return {key: self._value(where, key, value) for key, value in values.items()}

    def refuse_unused(self, defaults: Mapping[str, str]) -> None:
        """Raise ChoiceError for a given variable that the recipe does not use: probably a typo."""
        for name in self._given:
            if name not in self._used and name not in defaults:
                known = sorted({*defaults, *self._used})
                raise ChoiceError(
                    f"--set {name}={self._given[name]}: {self._path} has no variable {name}; "
                    + closest(name, known)
                )

    def _value(self, where: str, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(where, key, item) for item in value]
        return self._text(where, key, value) if isinstance(value, str) else value

    def _text(self, where: str, key: str, text: str) -> str:
        def filled(placeholder: "re.Match[str]") -> str:
            name = placeholder[1]
            if name not in self._values:
                raise ChoiceError(
                    f'{where}: {key} = "{text}" requires a value for {name}; add --set {name}=VALUE, or '
                    f"a default under [{_VARIABLES}]"
                )
            self._used.add(name)
            return self._values[name]

        result = _PLACEHOLDER.sub(filled, text)
        first = _PLACEHOLDER.match(text.removeprefix(FILE_PREFIX))
        typed = first is not None and first[1] in self._given
        folder = Path.cwd() if typed else self._path.absolute().parent
        if key in _PATH_KEYS:
            return str(folder / self._home(where, key, result))
        if key == "init" and Path(result).suffix in WEIGHTS_SUFFIXES:
            return str(folder / self._home(where, key, result.removeprefix(FILE_PREFIX)))
        if key in ("prior", "init") and result.startswith(FILE_PREFIX):
            name = self._home(where, key, result.removeprefix(FILE_PREFIX))
            return f"{FILE_PREFIX}{folder / name}"
        return result

    def _home(self, where: str, key: str, text: str) -> Path:
        """A path with `~` and `~user` filled in."""
        try:
            return Path(text).expanduser()
        except RuntimeError as error:
            raise ChoiceError(f"{where}: {key} = {text!r}: no such user") from error
