"""What is printed: nothing from outside reaches a terminal as a control character; pipes may close."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import REPOSITORY, TINY, Rela, run_python
from pictures import MakeTree

from rela.stages.commandline import options
from rela.stages.display import format_table

HOSTILE = "a\x1b]0;title\x07\x1b[2J\u202e\udc80\tz"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\u202e\udc80\tz"


def test_control_characters_are_escaped_and_lines_stay(capsys: pytest.CaptureFixture[str]):
    options.say(f"{HOSTILE}\nsecond ± line – 多")
    options.print_result(False, str, HOSTILE)
    captured = capsys.readouterr()
    assert captured.err == f"{SHOWN}\nsecond ± line – 多\n"
    assert captured.out == f"{SHOWN}\n"


def test_a_line_break_does_not_break_a_table():
    assert format_table(["name", "count"], [["a\nb  9", 1]]).splitlines()[2] == r"a\nb  9      1"


def test_names_of_folders_and_runs_reach_no_terminal_raw(
    rela: Rela, make_tree: MakeTree, tmp_path: Path
):
    red = "\x1b[31mred\u202e"
    places = [f"{split}/{name}" for split in ("train", "val") for name in (red, "b")]
    source = make_tree({f"{p}/{i}\x1b.png": (8, 8) for p in places for i in range(8)}, "pictures")
    (source / "train" / red / "not an \x1b image.png").write_bytes(b"nothing")
    outputs = [
        rela("convert", source, "--on-bad-image", "skip"),
        rela("train", "--prior", "none", "--method", "supervised", "--epochs", 1, *TINY),
        rela("eval"),
        rela("status"),
        rela("neighbors", source / "train" / red / "1\x1b.png", "--prior", "pictures-supervised-1"),
        rela("cache", "ls"),
        rela("convert", tmp_path / "\x1b[2J", exit_code=65),
    ]
    for result in outputs:
        for text in (result.stdout, result.stderr):
            assert all(c.isprintable() or c == "\n" for c in text), ascii(text)


def test_a_reader_that_stops_early_ends_the_command_quietly(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rela", "--workspace", tmp_path, "status", "--json"]
    ended = subprocess.run(
        command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize("command", ["--help", "status"])
def test_output_on_a_full_disk_is_an_error_in_a_line(tmp_path: Path, command: str):
    with open("/dev/full", "w") as full:
        code = f"from rela.cli import main; main(['--workspace', {str(tmp_path)!r}, {command!r}])"
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 74 and ended.stderr.startswith("rela: No space left on device")
    assert ended.stderr.count("\n") == 1


def test_doctor_ends_at_sigterm_with_its_probes():
    code = (
        "import os, signal, threading, time\n"
        "from rela.cli import main\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "main(['doctor'])"
    )
    ended = run_python("-c", code, timeout=20)
    assert ended.returncode == 75 and "SIGTERM" in ended.stderr
