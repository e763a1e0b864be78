"""A new option is one line in its class: the command line, Python and recipes have it, checked alike."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rela.errors import ChoiceError
from rela.options import keyword_function, option, part_of
from rela.stages import requests
from rela.stages.commandline.options import RequestCommand, Shown, takes
from rela.stages.recipe import jobs, kinds
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ToySettings(ConvertSettings):
    """As a new line in ConvertSettings would be."""

    toy_angle: float = option(7.0, "Turn every image by these degrees.", minimum=0, maximum=90)


@dataclass(frozen=True)
class ToyConvert(ToySettings, requests.Convert):
    """As Convert would be then."""


setattr(requests, "ToyConvert", ToyConvert)  # noqa: B010


@click.command(cls=RequestCommand)
@takes("ToyConvert")
def command(workspace: object, request: ToyConvert) -> Shown:
    """Convert."""
    return ToyConvertResult(request.toy_angle), str


@dataclass(frozen=True)
class ToyConvertResult:
    angle: float


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["images", *arguments])


def test_the_command_line_has_it_with_help_default_and_range():
    words = " ".join(run("--help").output.split())
    assert "--toy-angle NUMBER Turn every image by these degrees. [default: 7.0; 0<=x<=90]" in words
    assert "angle=7.0" in run().output
    assert '{"angle": 30.0}' in run("--toy-angle", "30", "--json").output
    refused = run("--toy-angle", "91")
    assert "91" in refused.output and refused.exit_code == 2


def test_python_has_it_as_a_keyword_documented_and_checked():
    @keyword_function(ToyConvert)
    def convert(request: ToyConvert) -> float:
        """Convert."""
        return part_of(request, ToySettings).toy_angle

    assert inspect.signature(convert).parameters["toy_angle"].default == 7.0
    assert "- toy_angle: Turn every image by these degrees. [default: 7.0]" in str(convert.__doc__)
    assert convert("images") == 7.0
    assert convert("images", toy_angle=30.0) == 30.0
    words = "toy_angle = 91: expected a number of at least 0 and at most 90"
    with pytest.raises(ChoiceError, match=words):
        convert("images", toy_angle=91)


def test_recipes_have_it_as_a_key_to_sweep_and_check(
    monkeypatch: pytest.MonkeyPatch, small_tree: Path, tmp_path: Path
):
    monkeypatch.setattr(kinds.ConvertJob, "REQUEST", ToyConvert)
    recipe = tmp_path / "recipe.toml"
    text = f'[[convert]]\nsource = "{small_tree}"\nname = "turned"\ntoy_angle = '
    recipe.write_text(text + "30")
    [job] = jobs.load_recipe(recipe, Workspace(tmp_path / "workspace"))
    assert job.request.toy_angle == 30.0
    recipe.write_text(text + '"steep"')
    with pytest.raises(ChoiceError, match=r"toy_angle = .steep.: expected a number"):
        jobs.load_recipe(recipe, Workspace(tmp_path / "workspace"))
