"""When a run is saved, and what its checkpoints hold (rela.training.checkpoints), with a made-up trainer.

Covers: saving between optimizer steps once the interval is over, at the end of epochs, and after a signal or
Ctrl-C, here or to another process; handlers are restored; the record and its digests; two are kept; words of
errors.
"""

import errno
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rela.errors import LostRankError, PreemptedError, UnavailableError
from rela.pipeline.processes import PREEMPTION_SIGNALS
from rela.training.checkpoints import RunCheckpoint, clear_useless, newest_checkpoint

MODULE: Any = None


def trainer_at(step: int, epoch: int = 0, **options: Any) -> Any:
    """What a checkpoint asks of Lightning's trainer."""
    strategy = SimpleNamespace(
        barrier=lambda: None,
        broadcast=lambda value: value,
        reduce_boolean_decision=lambda decision, all: decision,
    )
    found = SimpleNamespace(
        global_step=step, current_epoch=epoch, max_epochs=3, accumulate_grad_batches=1, world_size=1,
        is_global_zero=True, strategy=strategy,
        save_checkpoint=lambda path: path.write_bytes(b"weights of step %d" % step),
    )  # fmt: skip
    vars(found).update(options)
    return found


def make(directory: Path, interval_seconds: float = 1e9, **options: Any) -> RunCheckpoint:
    return RunCheckpoint(directory, {"training": 5.0}, lambda: 7.5, interval_seconds, **options)


def saved(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def installed(tmp_path: Path):
    """A checkpoint that has installed its handlers."""
    found = make(tmp_path / "deep" / "checkpoints")
    found.on_train_start(trainer_at(0), MODULE)
    yield found
    found.on_train_end(trainer_at(0), MODULE)


def test_a_record_holds_the_step_what_was_spent_and_the_digests(installed: RunCheckpoint):
    start = time.perf_counter()
    for step in (3, 4):
        installed.on_train_epoch_end(trainer_at(step, epoch=1), MODULE)
    assert saved(installed.directory) == [
        f"step-0000000{step}.{suffix}" for step in (3, 4) for suffix in ("ckpt", "json")
    ]
    assert (installed.directory / "step-00000004.ckpt").read_bytes() == b"weights of step 4"
    record = json.loads((installed.directory / "step-00000004.json").read_text())
    digest = record.pop("record_sha256")
    assert digest == hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    seconds = record.pop("seconds")
    assert record == {
        "step": 4, "epochs_done": 2, "cpu_seconds": 7.5,
        "sha256": hashlib.sha256(b"weights of step 4").hexdigest(),
    }  # fmt: skip
    assert seconds == installed.seconds and seconds["training"] == 5
    before = json.loads((installed.directory / "step-00000003.json").read_text())["seconds"]
    assert 0 < before["checkpoint"] < seconds["checkpoint"] <= time.perf_counter() - start
    found = newest_checkpoint(installed.directory)
    assert found is not None and found[0].name == "step-00000004.ckpt"
    assert found[1] == {**record, "seconds": seconds}


@pytest.mark.parametrize(
    ("interval", "batch", "accumulate", "is_saved"),
    [
        (0.0, 1, 1, True), (0.0, 0, 1, False), (1e9, 1, 1, False),
        (0.0, 2, 2, True), (0.0, 1, 2, False), (0.0, 3, 2, False), (0.0, 3, 3, True),
    ],
)  # fmt: skip
def test_between_two_steps_it_is_saved_once_the_interval_is_over(
    tmp_path: Path, interval: float, batch: int, accumulate: int, is_saved: bool
):
    checkpoint = make(tmp_path, interval)
    checkpoint._saved_at = time.perf_counter()
    trainer = trainer_at(5, epoch=1, accumulate_grad_batches=accumulate)
    checkpoint.on_train_batch_start(trainer, MODULE, None, batch)
    assert saved(tmp_path) == (["step-00000005.ckpt", "step-00000005.json"] if is_saved else [])
    if is_saved:
        assert json.loads((tmp_path / "step-00000005.json").read_text())["epochs_done"] == 1


def test_the_interval_begins_again_with_every_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    checkpoint, steps = make(tmp_path, 75.0), list[int]()
    checkpoint.on_train_start(trainer_at(0), MODULE)
    try:
        for step in range(1, 13):
            now += 25
            trainer = trainer_at(step, save_checkpoint=lambda path: path.write_bytes(b""))
            checkpoint.on_train_batch_start(trainer, MODULE, None, step)
            if (tmp_path / f"step-{step:08d}.json").exists():
                steps.append(step)
    finally:
        checkpoint.on_train_end(trainer_at(0), MODULE)
    assert steps == [3, 6, 9, 12]
    assert len(saved(tmp_path)) == 4  # two are kept


@pytest.mark.parametrize("number", PREEMPTION_SIGNALS)
def test_after_a_signal_the_step_is_saved_and_the_training_ends(
    installed: RunCheckpoint, number: signal.Signals
):
    os.kill(os.getpid(), number)
    with pytest.raises(PreemptedError) as caught:
        installed.on_train_batch_start(trainer_at(5), MODULE, None, 1)
    words = f"{number.name}: saved after step 5; resume with `rela train --resume`"
    assert str(caught.value) == words
    assert saved(installed.directory) == ["step-00000005.ckpt", "step-00000005.json"]
    with pytest.raises(PreemptedError):
        installed.on_train_epoch_end(trainer_at(6, epoch=1), MODULE)
    installed.on_train_epoch_end(trainer_at(7, epoch=2), MODULE)  # the last one is complete


def test_checkpoints_take_a_twentieth_of_the_time_where_epochs_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now, steps = 1000.0, list[int]()
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def save(path: Path) -> None:
        nonlocal now
        now += 2  # seconds, as much as an epoch
        path.write_bytes(b"")
        steps.append(int(path.stem.removeprefix("step-")))

    checkpoint, module = make(tmp_path), SimpleNamespace(stage=1)
    checkpoint.on_train_start(trainer_at(0), MODULE)
    try:
        for epoch in range(100):
            now += 2
            module.stage = 1 + (epoch >= 50)
            trainer = trainer_at(epoch, epoch, max_epochs=100, save_checkpoint=save)
            checkpoint.on_train_epoch_end(trainer, module)
    finally:
        checkpoint.on_train_end(trainer_at(0), MODULE)
    # 6 s at once, at the hand-over, when 8 and 10 s are a twentieth of 160 and 200 s, and at the end
    assert steps == [0, 1, 2, 50, 75, 94, 99]


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)  # handlers run between two instructions


def test_after_ctrl_c_the_step_is_saved_and_a_second_one_ends_at_once(tmp_path: Path):
    said: list[str] = []
    checkpoint = make(tmp_path, say=said.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        checkpoint.on_train_start(trainer_at(0), MODULE)
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt, match=r"^saved after step 5; resume with"):
            checkpoint.on_train_batch_start(trainer_at(5), MODULE, None, 1)
        assert saved(tmp_path) == ["step-00000005.ckpt", "step-00000005.json"]
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
        checkpoint.on_exception(trainer_at(5), MODULE, KeyboardInterrupt())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == ["Ctrl-C: saving after this step; press it again to stop at once"]


def test_a_signal_to_another_process_ends_this_one_too(installed: RunCheckpoint):
    barriers: list[int] = []
    trainer = trainer_at(5, world_size=2)
    trainer.strategy.barrier = lambda: barriers.append(1)
    installed.on_train_batch_start(trainer, MODULE, None, 1)
    assert saved(installed.directory) == []
    trainer.strategy.reduce_boolean_decision = lambda decision, all: not all
    with pytest.raises(PreemptedError, match=r"^a signal to another process: saved after step 5;"):
        installed.on_train_batch_start(trainer, MODULE, None, 1)
    assert barriers == [1] and len(saved(installed.directory)) == 2


def test_handlers_are_as_before_when_the_training_ends(tmp_path: Path):
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in PREEMPTION_SIGNALS]

    def stop(checkpoint: RunCheckpoint) -> list[Callable[[], None]]:
        return [
            lambda: checkpoint.on_train_end(trainer_at(0), MODULE),
            lambda: checkpoint.on_exception(trainer_at(0), MODULE, ValueError()),
        ]

    before = handlers()
    for way in range(2):
        checkpoint = make(tmp_path)
        checkpoint.on_train_start(trainer_at(0), MODULE)
        assert all(a != b for a, b in zip(handlers(), before, strict=True))
        stop(checkpoint)[way]()
        assert handlers() == before


def test_a_training_in_another_thread_has_no_handlers(tmp_path: Path):
    found: list[Any] = []

    def start() -> None:
        make(tmp_path).on_train_start(trainer_at(0), MODULE)
        found.extend(signal.getsignal(number) for number in PREEMPTION_SIGNALS)

    before = [signal.getsignal(number) for number in PREEMPTION_SIGNALS]
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert found == before


def test_only_rank_0_keeps_a_checkpoint(tmp_path: Path):
    calls: list[Path] = []
    trainer = trainer_at(5, world_size=2, is_global_zero=False, save_checkpoint=calls.append)
    make(tmp_path).on_train_epoch_end(trainer, MODULE)
    assert calls == [tmp_path / "step-00000005.tmp"]  # all ranks save together
    assert saved(tmp_path) == []


def test_processes_that_found_different_checkpoints_do_not_start(tmp_path: Path):
    checkpoint = make(tmp_path, start_step=4)
    trainer = trainer_at(0, world_size=2)
    checkpoint.setup(trainer, MODULE, "fit")
    trainer.strategy.broadcast = lambda value: 9
    with pytest.raises(LostRankError) as caught:
        checkpoint.setup(trainer, MODULE, "fit")
    assert str(caught.value) == (
        f"processes found different checkpoints in {tmp_path}: this one step 4, rank 0 step 9; "
        "their file systems disagree for now: start them again"
    )
    trainer.world_size = 1
    checkpoint.setup(trainer, MODULE, "fit")
    trainer.world_size, trainer.strategy.broadcast = 2, lambda value: 0
    make(tmp_path).setup(trainer, MODULE, "fit")  # from the beginning


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path):
    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UnavailableError) as caught:
        make(tmp_path).on_train_epoch_end(trainer_at(5, save_checkpoint=full), MODULE)
    assert str(caught.value) == (
        f"cannot write the checkpoint {tmp_path / 'step-00000005.ckpt'}: No space left on device; "
        "free some space, then resume with `rela train --resume`"
    )
    assert saved(tmp_path) == []
    with pytest.raises(UnavailableError):  # also where nothing was written
        make(tmp_path / "step-1").on_train_epoch_end(
            trainer_at(5, save_checkpoint=lambda path: full(path / "nothing")), MODULE
        )


def test_what_cannot_be_used_is_said_with_what_is_used_instead(tmp_path: Path):
    checkpoint, said = make(tmp_path), list[str]()
    for step in (3, 4):
        checkpoint.on_train_epoch_end(trainer_at(step), MODULE)
    three, four = tmp_path / "step-00000003.ckpt", tmp_path / "step-00000004.ckpt"
    four.write_bytes(b"other")
    found = newest_checkpoint(tmp_path, said.append)
    assert found is not None and found[0] == three
    three.with_suffix(".json").write_text("[" * 100_000)
    assert newest_checkpoint(tmp_path, said.append) is None
    assert newest_checkpoint(tmp_path) is None
    end = "cannot be used (damaged or missing); resuming"
    assert said == [
        f"warning: {four} {end} from step-00000003.ckpt",
        f"warning: {four} and {three} {end} from the beginning",
    ]


@pytest.mark.parametrize("newest", [3, None])
def test_what_does_not_count_is_cleared(tmp_path: Path, newest: int | None):
    checkpoint = make(tmp_path)
    for step in (3, 4):
        checkpoint.on_train_epoch_end(trainer_at(step), MODULE)
    for name in ("step-00000002.ckpt", "step-00000003.json.tmp", "step-00000005.tmp", "other.ckpt"):
        (tmp_path / name).touch()
    clear_useless(tmp_path, None if newest is None else tmp_path / "step-00000003.ckpt")
    kept = [] if newest is None else ["step-00000003.ckpt", "step-00000003.json"]
    assert saved(tmp_path) == ["other.ckpt", *kept]
