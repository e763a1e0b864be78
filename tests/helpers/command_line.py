"""The command line, called in this process, and options of small trainings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
    return result


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
