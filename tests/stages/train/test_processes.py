"""Processes that a training starts (rela.stages.train.processes) run rela, nothing of the user's."""

import sys
import time
from pathlib import Path

import pytest

from rela.stages.train.processes import RankFailedError, train_on_several
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings


def test_a_program_of_the_user_is_not_run_in_place_of_rela(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    for name in ("cli.py", "stages.py", "pipeline.py"):
        (tmp_path / name).write_text("print('mine'); open('ran', 'w').close()")
    (tmp_path / "rela.py").write_text("raise SystemExit(0)  # in the working directory only")
    beside_the_script = tmp_path / "scripts"
    beside_the_script.mkdir()
    (beside_the_script / "cli.py").write_text("raise SystemExit(0)")
    monkeypatch.setattr(sys, "path", [str(beside_the_script), *sys.path])
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    with pytest.raises(RankFailedError, match="process 1 of 1 ended with status 2"):
        train_on_several(workspace, "a-run", TrainSettings(), 1, time.time())
    assert "no interrupted run 'a-run'" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()
