"""`--workspace` and `--debug` before and after the command, and between two words of one."""

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from command_line import Rela, run_rela

from rela.cli import main
from rela.errors import RelaError

PLACES = {
    "before": ("--workspace", "{}", "priors", "list"),
    "after": ("priors", "list", "--workspace", "{}"),
}
PLACES["between"] = ("priors", "--workspace", "{}", "list")
PLACES["twice"] = ("--workspace", "{}", "priors", "list", "--workspace", "{}")


@pytest.mark.parametrize("where", PLACES)
def test_the_workspace_is_taken_from_any_place(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RELA_WORKSPACE", str(tmp_path / "of the variable:1"))
    words = [word.format(tmp_path / "given") for word in PLACES[where]]
    assert json.loads(run_rela(*words, "--json").stdout)["workspace"] == str(tmp_path / "given")
    found = json.loads(run_rela("priors", "list", "--json").stdout)
    assert found["workspace"] == str(tmp_path / "of the variable:1")


def test_the_traceback_is_shown_from_any_place(rela: Rela):
    for words in (("--debug", "convert", "nothing"), ("convert", "nothing", "--debug")):
        with pytest.raises(RelaError):
            rela(*words)
    assert "Traceback" not in rela("convert", "nothing", exit_code=65).output


def test_names_are_completed_from_a_workspace_after_the_command(tmp_path: Path):
    (tmp_path / "ws/datasets/photos").mkdir(parents=True)
    (tmp_path / "ws/datasets/photos/manifest.json").touch()
    shell = ShellComplete(main, {}, "rela", "_RELA_COMPLETE")
    words = ["train", "--workspace", str(tmp_path / "ws")]
    assert [item.value for item in shell.get_completions(words, "ph")] == ["photos"]


def test_printed_commands_have_the_workspace_that_was_typed(rela: Rela, small_tree: Path):
    place = "my work"
    said = rela("convert", small_tree, "--workspace", place).output
    assert "`rela --workspace 'my work' embed" in said
    assert (
        "`rela --workspace 'my work' embed"
        in rela("--workspace", place, "train", exit_code=2).output
    )
    assert "`rela embed" in rela("convert", small_tree).output


def test_resume_takes_a_workspace(rela: Rela, tmp_path: Path):
    said = rela("train", "--resume", "--workspace", "elsewhere", exit_code=2).output
    assert "0 interrupted runs in elsewhere: nothing to resume" in said
