"""Owners of unfinished work (rela.pipeline.owner): who it is, and whether it still lives.

Covers: a token names this host and process and is new each time; ended processes are told from living ones,
also of other users, and of other hosts nothing is claimed; work of other hosts is abandoned by its age; what
is shown has no control characters.
"""

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

from rela.pipeline.owner import describe, is_abandoned, is_gone, owner_token, printable

HOST = owner_token().rsplit("-", 2)[0]
ELSEWHERE = "node-7~4026531836-1234-0a1b2c3d"


def token_of(pid: int | str) -> str:
    return f"{HOST}-{pid}-0a1b2c3d"


def test_a_token_names_host_and_process_and_is_new_each_time():
    tokens = {owner_token() for _ in range(5)}
    assert len(tokens) == 5
    shape = rf"{re.escape(platform.node())}~[0-9]+-{os.getpid()}-[0-9a-f]{{8}}"
    assert all(re.fullmatch(shape, token) for token in tokens)


def test_a_process_is_gone_when_it_has_ended():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert not is_gone(token_of(process.pid))
        process.kill()
    assert is_gone(token_of(process.pid))
    assert not is_gone(owner_token())


@pytest.mark.parametrize(
    "token", [ELSEWHERE, ELSEWHERE.replace("1234", "99999999"), "", "a", "a-1-b"]
)
def test_of_another_host_nothing_is_known(token: str):
    assert not is_gone(token)


@pytest.mark.parametrize("pid", ["9" * 100, 99_999_999, 2**31 - 1])
def test_numbers_that_no_process_has_are_gone(pid: int | str):
    assert is_gone(token_of(pid))


@pytest.mark.parametrize("pid", ["9" * 101, "", "-1", "0x1", "²", "1 "])
def test_what_is_no_number_of_a_process_is_not_looked_up(pid: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("looked up"))
    assert not is_gone(token_of(pid))


def test_a_process_of_another_user_is_running(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, int]] = []

    def refuse(pid: int, number: int) -> None:
        asked.append((pid, number))
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_gone(token_of(1234))
    assert asked == [(1234, 0)]  # 0 sends nothing


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (ELSEWHERE, "process 1234 on node-7"),
        ("node7-1234-0a1b2c3d", "process 1234 on node7"),
        ("no\x1b[2J~1-12\n-0a", "process 12? on no?[2J"),
    ],
)
def test_an_owner_is_described_in_one_line(token: str, shown: str):
    assert describe(token) == shown
    assert printable(shown) == shown


def test_work_is_abandoned_when_its_process_has_ended_or_its_host_is_long_silent(tmp_path: Path):
    ended, living, silent = (
        tmp_path / f"a@{token}" for token in (token_of(99_999_999), owner_token(), ELSEWHERE)
    )
    for path in (ended, living, silent):
        (path / "deep").mkdir(parents=True)
        for part in (path / "deep", path):
            os.utime(part, (50, 50))
    for used_before in (0.0, 50.0, 1e12):
        assert is_abandoned(ended, used_before) and not is_abandoned(living, used_before)
    assert not is_abandoned(silent, 50.0) and is_abandoned(silent, 50.5)
    os.utime(silent / "deep", (90, 90))
    assert not is_abandoned(silent, 90.0) and is_abandoned(silent, 90.5)
    os.utime(silent / "deep", (0.5, 0.5))
    os.utime(silent, (0.5, 0.5))
    assert not is_abandoned(silent)
    assert not is_abandoned(tmp_path / f"gone@{ELSEWHERE}", 1e12)


def test_temporary_files_have_owners_too(tmp_path: Path):
    for token, expected in ((token_of(99_999_999), True), (owner_token(), False)):
        path = tmp_path / f".a@b@{token}.tmp"
        path.touch()
        assert is_abandoned(path) == expected
