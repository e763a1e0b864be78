"""The command line, called in this process, and options of small trainings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rela.cli import main

REPOSITORY = Path(__file__).parents[2]
TINY = ["--model", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "8"]


def run_rela(*arguments: object, exit_code: int = 0) -> Result:
    """The command line in this process; fails the test unless it exits as said."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return result


@pytest.fixture
def rela(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """rela("embed", "--prior", ...) in an empty directory; fails the test unless exit is as said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)

    return run_rela


def read_json(result: Result) -> Any:
    return json.loads(result.stdout)


def run_with(code: str, *commands: Sequence[object]) -> list[str]:
    """What `rela` prints for each command, in one process that runs `code` before it imports `rela.cli`."""
    program = (
        f"import json, sys\n{code}\nfrom command_line import run_rela\n"
        "print(json.dumps([run_rela(*command).stdout for command in json.loads(sys.argv[1])]))"
    )
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests/helpers")))
    ended = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands, default=str)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return found
