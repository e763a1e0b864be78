"""Entry points `rela.priors` and `rela.models`: the example of examples/plugin, and broken plugins.

A package is installed by hand: its module and its metadata in a folder of sys.path.
"""

import importlib
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from command_line import REPOSITORY, Rela, read_json
from PIL import Image

import rela as library
from rela.cli import main
from rela.models.backbones import build_backbone
from rela.stages.workspace.run import read_config

EXAMPLE = REPOSITORY / "examples/plugin"
MODULE = "rela_example_plugin"


def install(folder: Path, version: str = "1.0", **points: dict[str, str]) -> None:
    """The example with this version, or another package with these entry points, in a folder of sys.path."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    name = "broken" if points else project["name"]
    groups = points or project["entry-points"]
    shutil.rmtree(folder / f"{name}.dist-info", ignore_errors=True)
    (folder / f"{name}.dist-info").mkdir(parents=True)
    (folder / f"{name}.dist-info/METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    lines = [f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for g, e in groups.items()]
    (folder / f"{name}.dist-info/entry_points.txt").write_text("\n".join(lines))
    shutil.copy(EXAMPLE / f"{MODULE}.py", folder)
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, installed."""
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return folder


def completed(*words: str) -> list[str]:
    shell = ShellComplete(main, {}, "rela", "_RELA_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_a_prior_of_a_plugin_is_listed_completed_and_embedded(
    rela: Rela, site: Path, small_tree: Path
):
    rows = {row["prior"]: row for row in read_json(rela("priors", "list", "--json"))["priors"]}
    assert rows["plugin:colours"]["note"] == "rela-example-plugin==1.0"
    assert completed("embed", "--prior", "plugin:c") == ["plugin:colours"]
    assert MODULE not in sys.modules, "its names need no import"
    rela("convert", small_tree, "--name", "images")
    said = rela("embed", "--prior", "plugin:colors", exit_code=2).stderr
    assert "did you mean plugin:colours?" in said
    made = read_json(rela("embed", "--prior", "plugin:colours", "--json"))
    identity = made["artifact"]["manifest"]["content"]["prior"]
    assert identity["arch"] == "plugin:colours#rela-example-plugin==1.0"
    features = library.open_representations("plugin:colours")
    with Image.open(small_tree / features.paths[3]) as image:
        assert features[features.paths[3]].shape == (48,) and image.size == (16, 16)
    assert np.isfinite(features.array).all()
    assert read_json(rela("embed", "--prior", "plugin:colours", "--json"))["cached"]
    install(site, "1.1")
    assert not read_json(rela("embed", "--prior", "plugin:colours", "--json"))["cached"]


def test_a_model_of_a_plugin_is_trained_and_bound_to_its_version(
    rela: Rela, site: Path, small_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    rela("convert", small_tree, "--name", "images")
    assert completed("train", "--model", "pl") == ["plugin:small-net"]
    words = ["--prior", "none", "--image-size", 16, "--batch-size", 8, "--epochs", 1]
    said = rela("train", *words, "--model", "plugin:smal-net", exit_code=2).stderr
    assert "did you mean plugin:small-net?" in said

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rela.training.run._fit", stop)
    rela("train", *words, "--model", "plugin:small-net", "--name", "run", exit_code=130)
    settings = read_config(Path("workspace/runs/run")).settings
    assert settings.model == "plugin:small-net#rela-example-plugin==1.0"
    one, other = (build_backbone(settings.model, 16, seed=seed) for seed in (0, 1))
    assert not one[0].weight.equal(other[0].weight)
    install(site, "1.1")
    said = rela("train", "--resume", exit_code=2).stderr
    assert "`pip install rela-example-plugin==1.0`" in said
    shutil.rmtree(site / "rela-example-plugin.dist-info")
    importlib.invalidate_caches()
    said = rela("train", "--resume", exit_code=2).stderr
    assert "which is not installed: `pip install rela-example-plugin==1.0`" in said


def test_a_broken_plugin_is_one_line_and_breaks_nothing_else(
    rela: Rela, site: Path, small_tree: Path
):
    (site / "broken.py").write_text("def none(): return None\nraise_later = lambda: 1 / 0\n")
    (site / "bad.py").write_text("import no_such_package\n")
    points = {"bad": "bad:prior", "none": "broken:none", "zero": "broken:raise_later"}
    install(site, **{"rela.priors": points, "rela.models": points})
    assert "plugin:bad" in rela("priors", "list").stdout
    rela("convert", small_tree, "--name", "images")
    said = rela("embed", "--prior", "plugin:bad", exit_code=65).stderr
    assert "(ModuleNotFoundError: No module named 'no_such_package')" in said
    assert "`pip uninstall broken`" in said
    said = rela("embed", "--prior", "plugin:none", exit_code=65).stderr
    assert "returns a network and its preprocessing" in said
    assert "ZeroDivisionError" in rela("embed", "--prior", "plugin:zero", exit_code=65).stderr
    for name, says in (("bad", "ModuleNotFound"), ("none", "expected a torch"), ("zero", "Zero")):
        said = rela("train", "--prior", "none", "--model", f"plugin:{name}", exit_code=65).stderr
        assert says in said
