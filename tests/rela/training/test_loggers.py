"""Where the figures of a training also go (rela.training.loggers).

- names are checked before anything is computed; what is not installed comes with the command that
  installs it;
- TensorBoard's own reader finds every record's figures and the hyper-parameters; where MLflow and wandb are
  installed, their own files hold them, too; without a logger there is none of it;
- what refuses to begin is one line and leaves nothing; the choice of loggers is no other run.
"""

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from command_line import TINY
from small_runs import PLAN, beton, on_the_cpu, train

from rela.data.beton.reader import Beton
from rela.errors import ChoiceError, UnavailableError
from rela.training import loggers
from rela.training.loggers import open_loggers, parse_loggers

__all__ = ["beton", "on_the_cpu"]  # fixtures


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tensorboard", ("tensorboard",)),
        ("none", ()),
        (" tensorboard , tensorboard,", ("tensorboard",)),
    ],
)
def test_names_stand_with_commas(text: str, names: tuple[str, ...]) -> None:
    assert parse_loggers(text) == names


@pytest.mark.parametrize("text", ["", ",", "tensorbord", "none,tensorboard", "os"])
def test_other_names_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ChoiceError, match="expected some of tensorboard, wandb, mlflow"):
        parse_loggers(text)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_is_not_installed_is_said_before_anything_is_computed(
    rela: Callable[..., Result], small_tree: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find = loggers.importlib.util.find_spec
    monkeypatch.setattr(
        loggers.importlib.util, "find_spec", lambda n, *rest: None if n == name else find(n, *rest)
    )
    rela("convert", small_tree)
    message = rela(
        "train", "--prior", "none", "--logger", f"tensorboard,{name}", exit_code=2
    ).stderr
    assert message == f"rela: --logger {name} needs a package: pip install 'rela[{name}]'\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_text("l")])
def test_a_pipe_or_what_a_killed_training_wrote_gives_way_to_the_hyperparameters(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    record = tmp_path / "tensorboard" / "hparams.yaml"
    record.parent.mkdir()
    make(record)
    with open_loggers(("tensorboard",), tmp_path, "a-run", {"lr": 0.1}) as (logger,):
        logger.save()
    assert record.read_text() == "lr: 0.1\n"


@pytest.mark.timeout(60)
def test_a_full_disk_is_raised_in_the_training_and_not_printed_by_tensorboards_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)

    def log() -> None:
        with open_loggers(("tensorboard",), tmp_path, "a-run", {"lr": 0.1}) as (logger,):
            while True:
                logger.log_metrics({"loss": 1.0}, 0)

    with pytest.raises(OSError, match="No space"):
        log()
    assert printed == []
    assert threading.excepthook == printed.append


def test_tensorboard_gets_every_figure_and_the_hyperparameters(
    tmp_path: Path, beton: Beton
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(replace(PLAN, handover=0.5), tmp_path, beton)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "lr", "effective_rank", "feature_std", "online_accuracy"):
        written = [event.value for event in events.Scalars(name)]
        assert written == pytest.approx([record[name] for record in records]), name
    told = (tmp_path / "tensorboard" / "hparams.yaml").read_text()
    assert "model: timm:test_resnet" in told and "lr: 0.001" in told
    assert "devices" not in told  # where it ran is no hyper-parameter


def test_without_a_logger_there_is_none(tmp_path: Path, beton: Beton) -> None:
    train(replace(PLAN, epochs=1, logger="none"), tmp_path, beton)
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "metrics.jsonl").is_file()


def test_another_logger_is_no_other_run(rela: Callable[..., Result], small_tree: Path) -> None:
    rela("convert", small_tree)
    command = ("train", "--prior", "none", "--epochs", 1, *TINY)
    rela(*command, "--logger", "none")
    assert "already finished" in rela(*command).stdout


def test_a_logger_that_refuses_to_begin_is_one_line_and_leaves_nothing(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path, run: str) -> None:
        raise ValueError("no API key\nwhatever else")

    rela("convert", small_tree)
    monkeypatch.setattr(loggers, "_tensorboard", refuse)
    message = rela("train", "--prior", "none", "--epochs", 1, *TINY, exit_code=74).stderr
    assert message.endswith(
        "rela: --logger tensorboard cannot start: no API key; fix that, or leave it out\n"
    )
    assert not (tmp_path / "workspace" / "runs" / "images-byol-1").exists()


def test_loggers_are_closed_however_the_training_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noting:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def log_hyperparams(self, values: dict[str, Any]) -> None:
            self.calls.append(values)

        def finalize(self, status: str) -> None:
            self.calls.append(status)
            raise OSError("a full disk must not hide what went wrong")

    made = Noting()
    monkeypatch.setattr(loggers, "_tensorboard", lambda directory, run: made)
    with open_loggers(("tensorboard",), tmp_path, "a", {"lr": 1}) as opened:
        assert opened == [made]
    with (
        pytest.raises(KeyboardInterrupt),
        open_loggers(("tensorboard",), tmp_path, "a", {"lr": 2}),
    ):
        raise KeyboardInterrupt
    assert made.calls == [{"lr": 1}, "success", {"lr": 2}, "failed"]
    with open_loggers(("tensorboard",), tmp_path, "a", {}, is_first=False):
        pass
    assert len(made.calls) == 4

    def unreachable(directory: Path, run: str) -> None:
        raise RuntimeError

    monkeypatch.setattr(loggers, "_tensorboard", unreachable)
    with (
        pytest.raises(UnavailableError, match="cannot start: RuntimeError"),
        open_loggers(("tensorboard",), tmp_path, "a", {}),
    ):
        pass


@pytest.mark.parametrize("content", ["", "[]", '{"wandb": 3}', '{"wandb": "../../x"}', "\xff"])
def test_ids_that_are_none_are_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "loggers.json").write_text(content, encoding="latin-1")
    assert loggers._ids(tmp_path) == {}
    loggers._keep_id(tmp_path, "mlflow", "12ab")
    assert loggers._ids(tmp_path) == {"mlflow": "12ab"}


@pytest.mark.filterwarnings("ignore")
def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, beton: Beton) -> None:
    mlflow = pytest.importorskip("mlflow")
    plan = replace(PLAN, logger="mlflow", handover=0.5)
    train(replace(plan, epochs=2), tmp_path, beton)
    train(plan, tmp_path, beton)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "rela"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "a-run" and run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "effective_rank")) == 3
    assert run.data.params["model"] == "timm:test_resnet"


@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline(tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    plan = replace(PLAN, logger="wandb", handover=0.5)
    for epochs in (1, 2):
        train(replace(plan, epochs=epochs), tmp_path, beton)
    known = json.loads((tmp_path / "loggers.json").read_text())["wandb"]
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(known) for folder in folders)
    content = b"".join(path.read_bytes() for path in folders[0].glob("*.wandb"))
    assert b"effective_rank" in content and b"timm:test_resnet" in content
