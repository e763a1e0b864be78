"""Where a training stands, while it runs (rela.training.progress).

- the line fits any number of columns, and says least important things first no more; it is overwritten in
  place, never wraps, and nothing of it stays; where there is no terminal nothing is written;
- snapshots are taken now and then, not at every step; the file is there while the training runs alone;
- totals of a run that goes on are those of the whole run.
"""

import io
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import PLAN, STEPS_PER_EPOCH, beton, on_the_cpu, train
from snapshots import NOW

from rela.data.beton.reader import Beton
from rela.training import epoch_log
from rela.training import progress as live_progress
from rela.training.progress import (
    LiveProgress,
    Rates,
    Snapshot,
    clock,
    estimate,
    format_line,
    remove_progress,
    write_progress,
)

__all__ = ["beton", "on_the_cpu"]  # fixtures


class Terminal(io.StringIO):
    """A terminal of 80 columns; `screen` is what one sees on it."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        lines, column = [""], 0
        for character in self.getvalue():
            if character == "\r":
                column = 0
            elif character == "\b":
                column -= 1
            elif character == "\n":
                lines.append("")
                column = 0
            else:
                line = lines[-1].ljust(column)
                lines[-1] = line[:column] + character + line[column + 1 :]
                column += 1
                assert column < 80, "it would wrap"
        return [line.rstrip() for line in lines]


def test_the_line_says_everything_where_there_is_room() -> None:
    done = NOW.step / NOW.num_steps
    bar = "[" + "#" * int(20 * done) + "." * (20 - int(20 * done)) + f"] {100 * done:.0f} %"
    assert done == 0.05
    assert format_line(NOW, 150).startswith(f"{bar}  stage 1  epoch 12/100")
    assert format_line(NOW, 120) == (
        "stage 1  epoch 12/100  45 %  loss 0.5312  rho 0.9812  accuracy 34.1 %  1,234 img/s  "
        "data wait 1 %  ETA >1:02:33"
    )
    assert format_line(NOW, 79) == (
        "stage 1 12/100 loss 0.531 rho 0.981 acc 34.1% 1,234 img/s wait 1% ETA >1:02:33"
    )
    second = replace(NOW, stage=2, rho=None, eta_is_least=False, online_accuracy=None)
    assert format_line(second, 79) == (
        "stage 2  12/100  loss 0.531  1,234 img/s  wait 1%  ETA 1:02:33"
    )


@pytest.mark.parametrize("columns", range(0, 130))
def test_the_line_fits(columns: int) -> None:
    for now in (NOW, replace(NOW, epochs=100_000, epoch=99_999, loss=-123.4, eta_seconds=9e6)):
        assert len(format_line(now, columns)) <= columns


def test_what_is_not_known_yet_is_a_dash() -> None:
    first = replace(NOW, images_per_second=None, data_wait_share=None, eta_seconds=None)
    assert format_line(first, 79).endswith("– img/s  wait –%  ETA –")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (123, "2:03"), (3723, "1:02:03"), (172_800 + 3600, "2 d 1 h"), (59.6, "1:00")],
)
def test_times_are_those_of_a_clock(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_rates_are_of_the_last_half_minute() -> None:
    rates = Rates()
    assert rates.current() == (None, None)
    for second in range(100):  # ten images in each, from 60 on twenty and half of the time waiting
        late = max(0, second - 60)
        rates.mark(float(second), 10 * second + 10 * late, 0.5 * late)
    assert rates.current() == (pytest.approx(20), pytest.approx(0.5))
    rates.clear()
    assert rates.current() == (None, None)


def test_the_line_is_overwritten_and_stays_below_what_is_said(tmp_path: Path) -> None:
    terminal = Terminal()
    live = LiveProgress(tmp_path / "progress.json", stream=terminal)
    live.show("waiting for the first batch")
    live.update(0.0, lambda: NOW)
    live.say("epoch 12/100", lambda line: print(line, file=terminal))
    assert terminal.screen == ["epoch 12/100", format_line(NOW, 79)]
    live.update(1.0, lambda: replace(NOW, stage=2, eta_seconds=1.0))
    assert terminal.screen[1] == format_line(replace(NOW, stage=2, eta_seconds=1.0), 79)
    live.clear()
    assert terminal.screen == ["epoch 12/100", ""]
    live.say("done", lambda line: print(line, file=terminal))
    assert terminal.screen == ["epoch 12/100", "done", ""]


def test_nothing_of_an_interrupted_line_stays(tmp_path: Path) -> None:
    for text in ("waiting for the first batch", "x" * 79):
        terminal = Terminal()
        live = LiveProgress(tmp_path / "progress.json", stream=terminal)
        live.show(text)
        terminal.write("^C"[: 79 - len(text)])  # what a terminal shows of the key
        live.clear()
        live.say("interrupted", lambda line, to=terminal: print(line, file=to))  # type: ignore[misc]
        assert terminal.screen == ["interrupted", ""]


def test_nothing_stays_of_a_window_that_had_another_width(tmp_path: Path) -> None:
    terminal = Terminal()
    live = LiveProgress(tmp_path / "progress.json", stream=terminal)
    terminal.write("what was wrapped before, and is one line now")
    live.show("shorter")
    assert terminal.screen == ["shorter"]


def test_snapshots_are_taken_now_and_then(tmp_path: Path) -> None:
    taken: list[float] = []
    quiet = io.StringIO()
    for stream in (Terminal(), quiet):
        live = LiveProgress(tmp_path / "progress.json", stream=stream)
        taken.clear()
        for step in range(1000):  # ten seconds
            live.update(step / 100, lambda step=step: taken.append(step / 100) or NOW)  # type: ignore[misc]
        assert len(taken) == (4 if stream is quiet else 20)
    assert quiet.getvalue() == ""
    other = LiveProgress(tmp_path / "other.json", is_first=False, stream=Terminal())
    other.update(0.0, lambda: pytest.fail("another process has nothing to show"))
    assert not (tmp_path / "other.json").exists()


def test_the_file_holds_the_snapshot_and_who_took_it(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    write_progress(path, NOW)
    found = json.loads(path.read_text())
    assert found["pid"] == os.getpid()
    assert {name: found[name] for name in asdict(NOW)} == asdict(NOW)
    write_progress(tmp_path / "no" / "where", NOW)  # a full disk stops nothing
    path.with_name(".progress.json.tmp").write_text("half")
    remove_progress(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.0, "1 second"), (75.0, "75 seconds"), (150.0, "2 minutes"), (7000.0, "117 minutes"),
     (7300.0, "2 hours"), (2e5, "2 days")],
)  # fmt: skip
def test_the_rest_of_the_time_in_words(seconds: float, words: str) -> None:
    late = replace(NOW, eta_seconds=seconds, eta_is_least=False)
    assert estimate(late) == f"about {words} to go at the speed of the first steps"
    assert estimate(replace(late, eta_is_least=True)).endswith(
        "; more if steps of stage 2 are slower"
    )


# Real runs


def test_a_run_says_once_how_long_it_will_take(
    tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_SECONDS_BEFORE_ESTIMATE", "_SHORTEST_ESTIMATE"):
        monkeypatch.setattr(epoch_log, name, 0)
    said: list[str] = []
    train(replace(PLAN, epochs=2), tmp_path, beton, said.append)
    assert ["to go at the speed" in line for line in said].count(True) == 1


def test_a_run_that_goes_on_shows_the_totals_of_the_whole(
    tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_progress, "_LINE_SECONDS", 0.0)
    monkeypatch.setattr(live_progress, "_FILE_SECONDS", 0.0)
    found: list[dict[str, Any]] = []

    def note(path: Path, snapshot: Snapshot) -> None:
        write_progress(path, snapshot)
        found.append(json.loads(path.read_text()))

    monkeypatch.setattr(live_progress, "write_progress", note)
    plan = replace(PLAN, handover=0.45)
    train(replace(plan, epochs=2, handover=2 / 3), tmp_path, beton)  # the same step of hand-over
    first = len(found)
    assert first == 2 * STEPS_PER_EPOCH
    train(plan, tmp_path, beton)
    assert [(r["epoch"], r["step"]) for r in found] == [
        (step // STEPS_PER_EPOCH, step + 1) for step in range(3 * STEPS_PER_EPOCH)
    ]
    assert [r["stage"] for r in found] == [1] * 4 + [2] * 5
    assert {(r["epochs"], r["num_steps"]) for r in found[first:]} == {(3, 3 * STEPS_PER_EPOCH)}
    assert [r["epoch_share"] for r in found[:3]] == pytest.approx([1 / 3, 2 / 3, 1])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for record in records:  # the last step of an epoch has seen all of it
        shown = found[record["step"] - 1]
        assert shown["loss"] == pytest.approx(record["loss"])
        assert shown["online_accuracy"] == pytest.approx(record["online_accuracy"])
    # at the very end nothing is left to do; there is no file, but while it ran there was
    assert found[-1]["eta_seconds"] == 0
    assert not list(tmp_path.glob("*progress*"))


def test_a_run_without_a_terminal_says_its_lines_alone(
    tmp_path: Path, beton: Beton, capfd: pytest.CaptureFixture[str]
) -> None:
    train(replace(PLAN, epochs=1), tmp_path, beton)
    captured = capfd.readouterr()
    assert "stage" not in captured.err and "\r" not in captured.err


def test_a_terminal_that_is_gone_does_not_end_the_training(tmp_path: Path) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    live = LiveProgress(tmp_path / "progress.json", stream=Gone())
    live.update(0.0, lambda: NOW)
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == NOW.step
