"""Leases (rela.pipeline.lease), and what embedding makes of them.

Covers: only one holder at a time; what was given back, or whose holder was killed, can be taken at once;
of another machine what was not touched for a while, and not before; holding goes on by itself; parts are
claimed once, and what others make is waited for and not made again. Leases that are damaged, or none, of
numbers that no process has or times to come, stop nobody for longer than others.
"""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_rela

from rela.pipeline.lease import Leases, _is_old, holders
from rela.pipeline.owner import owner_token
from rela.pipeline.parts import PartStore
from rela.priors import PriorRequest
from rela.stages.embed.embed import embed
from rela.stages.workspace.workspace import Workspace

ELSEWHERE = "another.machine-1234-0a1b2c3d"
PRIOR = PriorRequest("random:shufflenet_v2_x0_5", image_size=32)
HOLD = """
import sys, time
from pathlib import Path
from rela.pipeline.lease import Leases
with Leases(Path(sys.argv[1])) as leases:
    print(leases.take("bread"), flush=True)
    time.sleep(600)
"""


def lease_of(directory: Path) -> Path:
    (path,) = (p for p in directory.iterdir() if p.name.endswith("bread"))
    return path


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def test_one_holds_it_until_it_is_given_back(tmp_path: Path):
    with Leases(tmp_path) as ours, Leases(tmp_path) as theirs:
        assert ours.take("bread") and ours.take("bread")
        assert not theirs.take("bread") and theirs.take("butter")
        ours.release("bread")
        assert theirs.take("bread") and not ours.take("bread")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with Leases(tmp_path) as ours:
            assert not ours.take("bread")
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert ours.take("bread")


@pytest.mark.parametrize(("seconds", "is_over"), [(50, False), (70, True)])
def test_another_machine_holds_what_it_touched_a_minute_ago(
    tmp_path: Path, seconds: float, is_over: bool
):
    with Leases(tmp_path) as ours:
        path = tmp_path / ".lease-bread"
        path.write_text(ELSEWHERE)
        age(path, seconds)
        assert ours.take("bread") == is_over


def test_a_living_process_holds_nothing_that_it_does_not_touch(tmp_path: Path):
    with Leases(tmp_path) as ours, Leases(tmp_path) as theirs:  # its number may be another's by now
        assert theirs.take("bread")
        assert not ours.take("bread")
        age(lease_of(tmp_path), 70)
        assert ours.take("bread")


def test_what_is_held_is_touched(tmp_path: Path):
    with Leases(tmp_path, seconds=1.2) as ours:
        assert ours.take("bread")
        age(lease_of(tmp_path), 100)
        time.sleep(0.6)
        assert time.time() - lease_of(tmp_path).stat().st_mtime < 10


def test_a_lease_that_is_being_written_is_somebodys(tmp_path: Path):
    (tmp_path / ".lease-bread").touch()
    with Leases(tmp_path) as ours:
        assert not ours.take("bread")


def test_parts_are_claimed_once_and_not_when_they_are_there(tmp_path: Path):
    store = PartStore(tmp_path / "parts", 5)
    store.write(1, b"there")
    with Leases(store.directory) as ours, Leases(store.directory) as theirs:
        mine = store.claim(range(5), ours)
        assert next(mine) == 0
        yours = store.claim(range(5), theirs)
        assert next(yours) == 2
        assert list(mine) == [3, 4] and list(yours) == []
        store.write(2, b"done", leases=theirs)
        assert list(store.claim(range(5), ours)) == [0, 3, 4]  # ours still, and missing
    assert sorted(path.name for path in store.directory.iterdir()) == ["part-000001", "part-000002"]


@pytest.fixture
def workspace(small_tree: Path, tmp_path: Path) -> Workspace:
    run_rela("--workspace", tmp_path / "workspace", "convert", small_tree)
    return Workspace(tmp_path / "workspace")


def embed_beside_another(
    workspace: Workspace, touched_seconds_ago: float
) -> tuple[int, list[str], bytes]:
    """Embed while another machine holds the only part: how many images, what was said, the file."""
    dataset, said = workspace.dataset(), list[str]()
    reference = embed(workspace, dataset, PRIOR, say=said.append).artifact
    assert reference is not None
    expected = (reference.path / "representations.h5").read_bytes()
    values = reference_values(reference.path / "representations.h5")
    store = PartStore(workspace.parts_dir(reference.fingerprint), 1)
    reference.path.rename(workspace.root / "hidden")
    store.directory.mkdir()
    lease = store.directory / ".lease-part-000000"
    lease.write_text(ELSEWHERE)
    age(lease, touched_seconds_ago)

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("waiting"):  # the other finishes
            store.write(0, values)
            lease.unlink()

    result = embed(workspace, dataset, PRIOR, say=say)
    assert result.artifact is not None
    assert (result.artifact.path / "representations.h5").read_bytes() == expected
    return result.num_embedded, said, expected


def reference_values(path: Path) -> bytes:
    import h5py

    with h5py.File(path) as file:
        return bytes(file["representations"][()].tobytes())


def test_what_another_machine_makes_is_waited_for(workspace: Workspace):
    num_embedded, said, _ = embed_beside_another(workspace, touched_seconds_ago=0)
    assert num_embedded == 0
    assert "waiting for 1 parts that other processes work on" in said


def test_what_a_dead_machine_began_is_made_again(workspace: Workspace):
    num_embedded, said, _ = embed_beside_another(workspace, touched_seconds_ago=70)
    assert num_embedded > 0 and not any("waiting" in line for line in said)


def test_what_was_taken_over_is_not_given_back_by_its_old_holder(tmp_path: Path):
    with Leases(tmp_path) as stopped, Leases(tmp_path) as ours, Leases(tmp_path) as theirs:
        assert stopped.take("bread")
        age(lease_of(tmp_path), 70)
        assert ours.take("bread")
        stopped.release("bread")
        assert not theirs.take("bread")


@pytest.mark.parametrize("pid", ["9" * 30, "9" * 99, str(2**31), "99999999"])
def test_numbers_that_no_process_has_are_nobodys(tmp_path: Path, pid: str):
    host = owner_token().rsplit("-", 2)[0]
    (tmp_path / ".lease-bread").write_text(f"{host}-{pid}-0a1b2c3d")
    assert holders(tmp_path) == {}
    with Leases(tmp_path) as ours:
        assert ours.take("bread")


@pytest.mark.parametrize(
    "token", ["", "\0", "-", "²-²-²", "{host}--5-0a1b2c3d", "{host}-²-0a1b2c3d"]
)
def test_a_damaged_lease_counts_until_it_is_old(tmp_path: Path, token: str):
    path = tmp_path / ".lease-bread"
    path.write_text(token.replace("{host}", owner_token().rsplit("-", 2)[0]))
    with Leases(tmp_path) as ours:
        assert not ours.take("bread") and set(holders(tmp_path)) == {"bread"}
        age(path, 70)
        assert holders(tmp_path) == {} and ours.take("bread")


def test_a_lease_of_no_text_is_read_all_the_same(tmp_path: Path):
    (tmp_path / ".lease-bread").write_bytes(b"\xff" * 100_000)
    with Leases(tmp_path) as ours:
        assert not ours.take("bread")
    assert len(holders(tmp_path)["bread"]) < 1000


@pytest.mark.parametrize("seconds", [-1e6, -1e9, 1e9])
def test_a_lease_of_a_time_to_come_is_nobodys(tmp_path: Path, seconds: float):
    path = tmp_path / ".lease-bread"
    path.write_text(ELSEWHERE)
    age(path, seconds)
    assert holders(tmp_path) == {}
    with Leases(tmp_path) as ours:
        assert ours.take("bread")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.timeout(20)
def test_what_is_no_lease_is_waited_for_as_long_as_one(
    tmp_path: Path, make: Callable[[Path], None]
):
    path = tmp_path / ".lease-bread"
    make(path)
    with Leases(tmp_path) as ours:
        assert not ours.take("bread")
        age(path, 70)
        assert ours.take("bread")
    assert holders(tmp_path) == {}


def test_a_lease_that_cannot_be_written_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Full(io.TextIOWrapper):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(path: Path, mode: str = "r", **options: str) -> Full:
        return Full(io.FileIO(path, mode))

    with Leases(tmp_path) as ours, Leases(tmp_path) as theirs:
        with monkeypatch.context() as patch:
            patch.setattr("rela.pipeline.lease.open", open_full, raising=False)
            with pytest.raises(OSError, match="No space left"):
                ours.take("bread")
        assert not list(tmp_path.glob(".lease-bread*"))
        assert theirs.take("bread") and not ours.take("bread")


@pytest.mark.parametrize(
    "is_mine", [None, True]
)  # True: it is removed between the look and the act
def test_a_lease_that_was_removed_meanwhile_is_given_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_mine: bool | None
):
    with Leases(tmp_path) as ours:
        assert ours.take("bread")
        lease_of(tmp_path).unlink()
        if is_mine:
            monkeypatch.setattr(ours, "_is_mine", lambda path: True)
        ours.release("bread")
        ours.release("bread")
        assert ours.take("bread")


def test_a_lease_that_was_taken_over_is_not_touched(tmp_path: Path):
    with Leases(tmp_path, seconds=0.3) as ours:
        assert ours.take("bread")
        lease_of(tmp_path).write_text(ELSEWHERE)
        age(lease_of(tmp_path), 70)
        time.sleep(0.2)
        assert time.time() - lease_of(tmp_path).stat().st_mtime > 60
    assert lease_of(tmp_path).read_text() == ELSEWHERE


def test_no_lease_can_be_taken_in_a_directory_that_was_removed(tmp_path: Path):
    with Leases(tmp_path / "nothing") as ours:
        assert not ours.take("bread")


def test_an_expired_lease_that_another_renews_stays_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / ".lease-bread"
    path.write_text(ELSEWHERE)
    with Leases(tmp_path) as ours:
        looks = iter([True, False])  # it is old at the first look, and new once it was moved away
        monkeypatch.setattr(ours, "_is_expired", lambda path: next(looks))
        assert not ours.take("bread")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(".lease-bread", ELSEWHERE)]


@pytest.mark.parametrize(("now", "is_old"), [(160, False), (161, True), (40, False), (39, True)])
def test_a_lease_is_old_after_its_time_and_as_long_before_it(
    tmp_path: Path, now: float, is_old: bool
):
    path = tmp_path / ".lease-bread"
    path.touch()
    os.utime(path, (100, 100))
    assert _is_old(path, now, 60) == is_old
