"""Write the reference in cli.md and python.md from the help texts and docstrings: `python docs/reference.py`.

A page has a line `<!-- reference: NAME ... -->` for each group of commands or functions; what follows, up
to `<!-- end -->`, is replaced.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import click

import rela
from rela.cli import main
from rela.representations.named import NamedRepresentations
from rela.stages.commandline import everywhere

PAGES = [Path(__file__).parent / name for name in ("cli.md", "python.md")]
_PLACE = re.compile(r"(<!-- reference: (.*?) -->\n).*?(<!-- end -->)", re.S)
_COLUMNS = 110


def filled(page: str) -> str:
    """The text of a page with its references as the code has them now."""

    def text(place: "re.Match[str]") -> str:
        sections = [_section(name) for name in place[2].split(", ")]
        return place[1] + "\n" + "\n\n".join(sections) + "\n\n" + place[3]

    return _PLACE.sub(text, page)


def _section(name: str) -> str:
    if name == "NamedRepresentations":
        return _class(NamedRepresentations)
    if name.startswith("rela."):
        return _function(name, getattr(rela, name.removeprefix("rela.")))
    return "\n\n".join(_command(name))


def _command(name: str) -> Iterable[str]:
    """Usage, help and options of a command, and those of its sub-commands."""
    words, command = name.split(), main
    context = click.Context(main, info_name="rela")
    for word in words[1:]:
        command = command.commands[word]  # type: ignore[attr-defined]
        context = click.Context(command, info_name=word, parent=context)
    if isinstance(command, click.Group):
        for sub in command.commands:
            yield from _command(f"{name} {sub}")
        return
    usage = " ".join([name, "[OPTION]...", *command.collect_usage_pieces(context)[1:]])
    yield f"### {name}\n\n```text\n{usage}\n```"
    yield _paragraphs(command.help or "")
    own = (
        p for p in command.params if isinstance(p, click.Option) and p.name not in everywhere.NAMES
    )
    rows = [_row(each, context) for each in own]
    if rows:
        yield "\n".join(["| option | |", "|---|---|", *rows])


def _row(option: click.Option, context: click.Context) -> str:
    flags, text = option.get_help_record(context) or ("", "")
    if isinstance(option.type, click.Choice):
        flags = f"{option.opts[0]} NAME"
        text = text.replace("  [", f" One of {', '.join(map(str, option.type.choices))}. [")
    return f"| `{flags}` | {_cell(text)} |"


def _cell(text: str) -> str:
    text = re.sub(r"default: \((.*)\)([];])", r"default: \1\2", re.sub(r"\s+", " ", text))
    return text.replace("<=", " ≤ ").replace(">=", " ≥ ").replace("|", "\\|").replace("<", "&lt;")


def _paragraphs(text: str) -> str:
    """A help text or docstring as Markdown: options in a list, examples in blocks."""
    found = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines = textwrap.dedent(paragraph.removeprefix("\b\n"))
            found.append(f"```text\n{lines}\n```")
        elif paragraph.startswith(">>>"):
            found.append(f"```python-console\n{paragraph}\n```")
        elif paragraph.startswith("- "):
            items = re.split(r"\n(?=- )", paragraph)
            items_shown = (re.sub(r"^- (\w+):", r"- `\1`:", _one_line(item)) for item in items)
            found.append("\n".join(items_shown))
        else:
            found.append(textwrap.fill(_one_line(paragraph), _COLUMNS, break_on_hyphens=False))
    return "\n\n".join(found)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("<", "&lt;")


def _function(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    arguments = [_argument(each) for each in signature.parameters.values()]
    kinds = [each.kind for each in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        arguments.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returned = signature.return_annotation
    returned = returned if isinstance(returned, str) else inspect.formatannotation(returned)
    returned = re.sub(r"\b[a-z_]+\.", "", returned.strip("'\""))
    shown = textwrap.fill(
        f"{name}({', '.join(arguments)}) -> {returned}", 100,
        subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return f"### {name}\n\n```text\n{shown}\n```\n\n{_paragraphs(inspect.getdoc(function) or '')}"


def _argument(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    if parameter.default is inspect.Parameter.empty:
        return text
    default = "log" if callable(parameter.default) else repr(parameter.default)
    default = re.sub(r"PosixPath\((.*)\)", r"\1", default)
    return f"{text}={default}"


def _class(kind: type) -> str:
    rows = []
    for name, member in vars(kind).items():
        is_field = not (inspect.isfunction(member) or isinstance(member, property))
        if not name.startswith("_") and not is_field and inspect.getdoc(member):
            said = (inspect.getdoc(member) or "").split("\n\n")[0]
            shown = name if isinstance(member, property) else f"{name}(…)"
            rows.append(f"| `{shown}` | {_cell(said)} |")
    text = _paragraphs(inspect.getdoc(kind) or "")
    return "\n".join([f"### {kind.__name__}\n\n{text}\n", "| member | |", "|---|---|", *rows])


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
