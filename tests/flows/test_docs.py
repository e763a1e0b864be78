"""What is written agrees with what is there: README, help texts, CONTRIBUTING, CHANGELOG, scripts."""

import inspect
import itertools
import os
import re
import runpy
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import click
import pytest
from command_line import REPOSITORY, run_python
from packaging.requirements import Requirement

from rela.cli import main

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(main.commands)


def every_command(group: click.Group = main, before: str = "") -> dict[str, click.Command]:
    """Commands and sub-commands by what is typed for them: `embed`, `priors rank`."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[before + name] = command
        if isinstance(command, click.Group):
            found |= every_command(command, f"{before}{name} ")
    return found


EVERY_COMMAND = every_command()


def readme_commands() -> list[list[str]]:
    """Every `rela ...` in a code block or in backticks, split into words, comments cut off."""
    guide = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", README + guide, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(rela [^`]+)`", README + guide)
    found = [line.split("#")[0].split() for line in [*lines, *inline] if line.startswith("rela ")]
    assert len(found) > 8
    return found


def test_every_command_and_option_in_the_readme_exists():
    for words in readme_commands():
        if words[1] == "COMMAND":
            continue
        is_group = isinstance(main.commands[words[1]], click.Group)
        command = EVERY_COMMAND[" ".join(words[1 : 3 if is_group else 2])]
        known = {name for p in command.params for name in p.opts} | {"--help"}
        assert {word for word in words[2:] if word.startswith("--")} <= known, " ".join(words)


def test_the_readme_names_every_command():
    for name in COMMANDS:
        assert f"`rela {name}" in README, name


@pytest.mark.parametrize("name", sorted(EVERY_COMMAND))
def test_every_command_and_every_option_has_help(name: str):
    command = EVERY_COMMAND[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_every_option_without_a_value_says_what_happens_then():
    optional = {("eval", "prior"), ("embed", "prior")}  # a choice of its own, and a required one
    for name, command in EVERY_COMMAND.items():
        for parameter in command.params:
            has_value = isinstance(parameter.default, str | int | float | Path)
            if isinstance(parameter, click.Option) and not (has_value or parameter.is_flag):
                said = isinstance(parameter.show_default, str)
                assert said or (name, parameter.name) in optional, (name, parameter.name)


@pytest.mark.parametrize("path", sorted(re.findall(r"\]\(([^)#:]+)\)", README)))
def test_every_file_the_readme_links_is_there(path: str):
    assert (REPOSITORY / path).exists()


def test_the_reference_is_that_of_the_code():
    reference = runpy.run_path(str(REPOSITORY / "docs" / "reference.py"))
    for path in reference["PAGES"]:
        page = path.read_text(encoding="utf-8")
        assert reference["filled"](page) == page, f"run `python docs/reference.py`: {path.name}"
        for kind in (
            int,
            str,
            tuple,
            dict,
        ):  # fields are described by their class, not by their default
            assert (inspect.getdoc(kind) or "").split("\n")[0] not in page
        assert page.count("\n### ") > 15


def test_the_pages_build_without_a_warning(tmp_path: Path):
    words = ["-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "doctrees"]
    places = [REPOSITORY / "docs", tmp_path / "html"]
    result = run_python("-m", "sphinx", *words, *places, env={"COLUMNS": "80"})
    assert result.returncode == 0, result.stderr
    page = re.sub("<[^>]+>", "", (tmp_path / "html" / "cli.html").read_text(encoding="utf-8"))
    for name, command in EVERY_COMMAND.items():
        assert isinstance(command, click.Group) or f"rela {name} " in page
    assert "--target-width" in page
    for built in (tmp_path / "html").glob("*.html"):  # read without a network
        markup = built.read_text(encoding="utf-8")
        loads = r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="https?:'
        assert not re.findall(loads, markup)
        assert "\\leftarrow" not in markup, built.name
    assert "<math" in (tmp_path / "html" / "method.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "script", ["scripts/setup", "scripts/docs", "scripts/demo", "scripts/test", ".ci/run"]
)
def test_scripts_can_be_run(script: str):
    path = REPOSITORY / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


def test_the_tree_in_contributing_names_every_file_once():
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = contributing.split("## The tree")[1].split("```")[1]
    found, folders = [], [Path()]
    for line in filter(str.strip, tree.splitlines()):
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders[depth + 1 :] = []
        path = folders[depth] / name
        if name.endswith("/"):
            folders.append(path)
        else:
            found.append(path.as_posix())
        assert len(line.split()) > 1, f"{line}: say what it holds"
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("pipeline", "rela", "stages")
        for path in (REPOSITORY / folder).rglob("*.py")
        if path.name != "__init__.py" and path.parts[-2:] != ("rela", "cli.py")
    }
    linked = ("rela/stages/", "rela/pipeline/")
    assert sorted(found) == sorted({"cli.py", *(p for p in there if not p.startswith(linked))})


def test_every_dependency_has_its_reason():
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = contributing[contributing.index("## Dependencies") :]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for line in [*project["dependencies"], *itertools.chain(*extras)]:
        name = Requirement(line).name
        assert name in table or name == "rela", name


def test_the_changelog_begins_with_the_installed_version():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    [newest, *_] = re.findall(r"^## (\S+)", changelog, re.M)
    assert newest == metadata.version("rela")


def test_help_answers_from_a_fresh_process():
    result = run_python("-m", "rela", "--help")
    assert result.returncode == 0
    for name in COMMANDS:
        assert name in result.stdout
