"""Compiled kernels are loaded only from a directory that nobody else can write to."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import REPOSITORY

from rela.data.kernel_cache import kernel_cache, kernel_cache_places


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def test_it_is_private_and_found_again():
    place = kernel_cache()
    assert place == kernel_cache() == kernel_cache_places()[0]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def writable_by_others(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o777)


def writable_by_the_group(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o770)


def a_link(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = place.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)


def a_file(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()


@pytest.mark.parametrize("plant", [writable_by_others, writable_by_the_group, a_link, a_file])
def test_what_others_may_have_prepared_is_not_used(plant: Callable[[Path], None]):
    first, second = kernel_cache_places()
    plant(first)
    assert kernel_cache() == second
    second.rmdir()
    plant(second)
    new = kernel_cache()
    assert new not in (first, second) and stat.S_IMODE(new.stat().st_mode) == 0o700


def test_a_directory_of_another_user_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    places = kernel_cache_places()
    assert all("-54321-" in place.name for place in places)
    assert kernel_cache() not in places  # they are made, by the real user


def test_the_kernels_are_cached_there_and_a_new_one_is_removed(tmp_path: Path):
    code = "from rela.data import kernels\nfrom rela.data.kernel_cache import kernel_cache as f\nprint(f())"
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(tmp_path / "temporary"),
    }

    def run() -> Path:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip())

    assert run().parent == tmp_path / "home" / "rela"
    for place in kernel_cache_places():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777) if place.exists() else writable_by_others(place)
    new = run()
    assert new.name.startswith("rela-kernels-") and not new.exists()
