"""The command line, called in this process, and options of small trainings."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from rela.cli import main

Rela = Callable[..., Result]  # the fixture `rela`, and `run_rela`
REPOSITORY = Path(__file__).parents[2]
TINY = ["--model", "timm:test_resnet", "--image-size", "32", "--batch-size", "8"]


def run_rela(*arguments: object, exit_code: int = 0) -> Result:
    """The command line in this process; fails the test unless it exits as said."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    for command in printed_commands(result.output):
        parse(command)
    return result


def printed_commands(output: str) -> list[str]:
    """The `rela …` in backticks, in their order; names of commands alone are left out."""
    lines = re.findall(r"`(rela [^`\n]+)`", output)
    found = [command for line in lines for command in re.split(r" && (?=rela )", line)]
    return [c for c in dict.fromkeys(found) if len(c.split()) > 2 and "…" not in c]


def parse(command: str) -> None:
    """Fail the test unless the command line exists with these options and values; runs nothing."""
    words = shlex.split(command)[1:]
    while words[0].startswith("--"):
        del words[: 1 if words[0] == "--debug" else 2]
    found: click.Command | None = main
    context = click.Context(main, info_name="rela")
    while isinstance(found, click.Group):
        name = words.pop(0)
        found = found.get_command(context, name)
    assert found is not None, f"`{command}` was printed, but there is no such command"
    try:
        found.make_context(name, words, parent=context)
    except click.ClickException as error:
        raise AssertionError(f"`{command}` was printed, but: {error.format_message()}") from error


def read_json(found: Result | Path | subprocess.CompletedProcess[str]) -> Any:
    """What a command printed, or a file holds, with --json."""
    return json.loads(found.read_bytes() if isinstance(found, Path) else found.stdout)


def run_python(
    *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds rela: run_python("-c", code); `env` adds to the environment."""
    found = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=found, capture_output=True, text=True, **options)


def run_with(code: str, *commands: Sequence[object]) -> list[str]:
    """What `rela` prints for each command, in one process that runs `code` before it imports `rela.cli`."""
    program = (
        f"import json, sys\n{code}\nfrom command_line import run_rela\n"
        "print(json.dumps([run_rela(*command).stdout for command in json.loads(sys.argv[1])]))"
    )
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests/helpers")))
    ended = run_python("-c", program, json.dumps(commands, default=str), env={"PYTHONPATH": path})
    assert ended.returncode == 0, ended.stderr
    found: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return found
