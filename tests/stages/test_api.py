"""`import rela` as a library: the commands as functions, and cached features by name.

- the examples in the docstrings run, on a small set of generated images;
- options and defaults are those of the command line, and are checked like there;
- features by path are the rows that plain h5py and csv give;
- a plain script works, and so does what `rela embed` prints.
"""

import csv
import doctest
import importlib.resources
import inspect
import pickle
import pkgutil
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import REPOSITORY, run_python, run_rela
from damages import flip_bit
from pictures import SMALL_TREE, save_tree
from PIL import Image
from torch.utils.data import DataLoader

import rela
from rela.cli import main
from rela.errors import ChoiceError, RelaError
from rela.options import keyword_function, part_of
from rela.stages import api
from rela.stages.report.report import ReportResult
from rela.stages.settings import ExportSettings
from rela.training.progress import LiveProgress

PRIOR: dict[str, Any] = {"prior": "random:shufflenet_v2_x0_5", "image_size": 32}
EXAMPLES = [test for test in doctest.DocTestFinder().find(api, "rela") if test.examples]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` (3 classes, 8 train and 4 val PNGs each), converted, embedded, trained."""
    folder = tmp_path_factory.mktemp("api")
    workspace = folder / "workspace"
    rela.convert(save_tree(folder / "images", SMALL_TREE), workspace=workspace)
    rela.embed(**PRIOR, workspace=workspace)
    (folder / "recipe.toml").write_text('[[convert]]\nsource = "{photos}"\n')
    rela.train(
        prior=f"{PRIOR['prior']}-seed0", model="shufflenet_v2_x0_5", image_size=32, batch_size=8,
        epochs=1, handover=0.5, name="first", workspace=workspace,
    )  # fmt: skip
    return folder


@pytest.fixture
def here(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a copy of it."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_the_docstrings_run(example: doctest.DocTest, here: Path):
    report: list[str] = []
    example.globs = {"rela": rela}
    found = doctest.DocTestRunner().run(example, out=report.append, clear_globs=False)
    assert found.attempted > 0
    assert not found.failed, "".join(report)


def test_every_function_has_an_example():
    # of the command line, minutes, subprocesses; test_own_networks.py
    without = {"preset", "demo", "doctor", "register"}
    assert {test.name for test in EXAMPLES} == {
        f"rela.{n}" for n in rela.__all__ if n not in without
    }


FUNCTIONS = {
    "eval": "evaluate", "priors list": "list_priors", "priors rank": "rank_priors",
    "run": "run_recipe plan_recipe", "train": "train resume preset", "status": "status describe under_way",
    "cache ls": "list_cache", "cache verify": "verify_cache", "cache gc": "clean_cache", "rm": "remove",
}  # fmt: skip


def test_every_command_has_its_functions_and_the_reference_shows_them():
    page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
    commands = {
        f"{name} {inner}".strip(): None
        for name, command in main.commands.items()
        for inner in getattr(command, "commands", [""])
    }
    del commands["completion"]  # of shells
    of_commands = {f for name in commands for f in FUNCTIONS.get(name, name).split()}
    assert of_commands | {"load_backbone", "open_representations", "register"} == set(rela.__all__)
    assert [name for name in rela.__all__ if f"### rela.{name}\n" not in page] == []


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("convert", ["given"]),
        ("embed", ["--prior", "given"]),
        ("train", []),
        ("eval", []),
        ("export", []),
        ("neighbors", []),
        ("report", []),
        ("priors rank", []),
        ("rm", []),
    ],
)
def test_options_and_defaults_are_those_of_the_command_line(command: str, arguments: list[str]):
    function = getattr(rela, FUNCTIONS.get(command, command).split()[0])
    parameters = inspect.signature(function).parameters
    of_module = ("preprocessing", "name") if command in ("embed", "eval") else ()
    only_here = ("workspace", "say", *of_module)
    ours = {name: p.default for name, p in parameters.items() if name not in only_here}
    renamed = {"priors": "prior", "every": "all", "embed_first": "embed"}
    only_there = ("as_json", "preset_name", "resume")  # rela.preset, and the same call again
    *groups, name = command.split()
    group = main.commands[groups[0]] if groups else main
    parsed = group.commands[name].make_context(name, arguments).params
    theirs = {renamed.get(k, k): v for k, v in parsed.items() if k not in only_there}
    assert ours.keys() == theirs.keys()
    for name, default in ours.items():
        if default is not inspect.Parameter.empty:  # else it has to be given
            assert theirs[name] == default, name


def test_options_are_checked_as_on_the_command_line(here: Path):
    for call, error, words in (
        (
            lambda: rela.train(epochs=0),
            ChoiceError,
            "epochs = 0: expected an integer of at least 1",
        ),
        (
            lambda: rela.train(epochs="5"),
            ChoiceError,
            r"epochs = '5' \(str\): expected an integer of at least 1",
        ),
        (lambda: rela.embed(prior="resnet18", batch_size=True), ChoiceError, "batch_size = True"),
        (
            lambda: rela.embed(prior="resnet18", device=0),
            ChoiceError,
            r"device = 0 \(int\): expected a string",
        ),
        (lambda: rela.export(to="jax"), ChoiceError, "one of torchvision, timm"),
        (
            lambda: rela.train(epoch=5),
            TypeError,
            r"train\(\) has no option epoch; did you mean epochs\?",
        ),
        (
            lambda: rela.rank_priors(row=5),
            TypeError,
            r"rank_priors\(\) has no option row; did you mean rows",
        ),
        (
            lambda: rela.train(zzz=1),
            TypeError,
            r"train\(\) has no option zzz; help\(rela.train\) lists",
        ),
        (
            lambda: rela.embed("images"),
            TypeError,
            r"embed\(\): missing a required argument: 'prior'",
        ),
        (
            lambda: rela.embed(prior="resnet18", split="test"),
            ChoiceError,
            "split = test: expected one of",
        ),
        (
            lambda: rela.neighbors("x.png", count=0),
            ChoiceError,
            "count = 0: expected an integer of at least 1",
        ),
        (lambda: rela.report(maps=-1), ChoiceError, "maps = -1: expected an integer of at least 0"),
        (
            lambda: rela.evaluate(protocol="knn"),
            ChoiceError,
            "protocol = knn: expected one of knn20",
        ),
        (
            lambda: rela.evaluate(protocol=["knn20", "x"]),
            ChoiceError,
            "protocol = .* expected one of knn20",
        ),
        (lambda: rela.evaluate("first", dataset="nope"), RelaError, "no data set 'nope'"),
        (lambda: rela.nothing, AttributeError, "nothing"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_paths_may_be_texts():
    @keyword_function(ExportSettings)
    def given(settings: ExportSettings) -> object:
        return part_of(settings, ExportSettings).output

    assert given(output="a/b.pth") == Path("a/b.pth")
    assert "force: Replace an existing export" in str(given.__doc__)


def test_the_workspace_is_the_one_named_or_that_of_the_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert rela.status().workspace == "workspace"
    monkeypatch.setenv("RELA_WORKSPACE", str(tmp_path / "other"))
    assert rela.status().datasets == []
    assert len(rela.status(workspace="workspace").datasets) == 1


def test_messages_go_to_say_or_the_log(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    said: list[str] = []
    rela.embed(**PRIOR, seed=1, say=said.append)
    assert "the central 32×32 cropped" in "".join(said)
    with caplog.at_level("INFO", "rela"):
        rela.embed(**PRIOR, seed=2)
    assert "the central 32×32 cropped" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_notebook_shows_messages_and_progress(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel="a kernel"))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    rela.embed(**PRIOR, seed=3)
    shown = capsys.readouterr()
    assert "the central 32×32 cropped" in shown.out
    assert "embed train: 100%" in shown.err
    LiveProgress(here / "progress.json").show("stage 1")
    assert capsys.readouterr().err.startswith("\rstage 1 ")


def test_features_by_path_are_the_rows_that_h5py_and_csv_give(here: Path):
    features = rela.open_representations()
    [path] = (here / "workspace/representations").glob("*/representations.h5")
    with h5py.File(path) as file:
        rows = file["representations"][:]
    with open(here / "workspace/datasets/images/train.csv", newline="") as file:
        index = list(csv.DictReader(file))
    assert features.paths == list(features) == [row["path"] for row in index]
    assert features.labels.tolist() == [int(row["label"]) for row in index]
    for i, row in enumerate(index):
        assert np.array_equal(features[row["path"]], rows[i])
    assert np.array_equal(features.array, rows)
    assert isinstance(features.array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        features.array[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        features["train/ant/00.png"][0] = 1
    assert features.attributes["prior"] == f"{PRIOR['prior']}-seed0@32px"
    assert "nope.png" not in features and features.get("nope.png") is None


def test_features_are_a_pytorch_data_set(here: Path):
    features = rela.open_representations(PRIOR["prior"] + "-seed0")
    for workers in (0, 1):
        batches = list(DataLoader(features.torch_dataset(), batch_size=10, num_workers=workers))
        vectors = torch.cat([vector for vector, _ in batches])
        assert vectors.dtype == torch.float32
        assert np.array_equal(vectors.numpy(), features.array.astype(np.float32))
        assert torch.cat([label for _, label in batches]).tolist() == features.labels.tolist()


def test_features_of_crops_are_several_vectors_for_each_path(here: Path):
    made = rela.embed(**PRIOR, crops=3)
    assert made.artifact is not None
    features = rela.open_representations(made.artifact.path)
    assert features.array.shape == (72, 1024)
    assert len(features) == 24
    assert np.array_equal(features["train/ant/02.png"], features.array[6:9])
    assert np.array_equal(features.vector(-1), features.array[-3:])
    assert features.torch_dataset()[2][0].shape == (3, 1024)
    with pytest.raises(IndexError):
        features.vector(24)


def test_features_are_found_by_folder_file_and_name(here: Path):
    [folder] = (here / "workspace/representations").iterdir()
    expected = list(rela.open_representations())
    elsewhere = here / "elsewhere"
    for which in (folder, str(folder), folder / "representations.h5"):
        assert list(rela.open_representations(which, workspace=elsewhere)) == expected
    for which in (folder.name, PRIOR["prior"] + "-seed0"):
        assert list(rela.open_representations(which)) == expected
    # the same images under other names: the features are the cached ones, the names are not
    shutil.move(here / "images", here / "renamed")
    shutil.move(here / "renamed/train/ant/00.png", here / "renamed/train/ant/000.png")
    assert rela.embed("renamed", **PRIOR).cached
    assert "train/ant/000.png" in rela.open_representations(folder, dataset="renamed")
    assert "train/ant/00.png" in rela.open_representations(folder)

    for which, words in (
        (here / "images", "contains no representations"),
        ("resnet50", "rela embed images --prior resnet50"),
    ):
        with pytest.raises(ChoiceError, match=words):
            rela.open_representations(which, dataset="images")
    with pytest.raises(ChoiceError, match="--split val"):
        rela.open_representations(dataset="images", split="val")


def test_damaged_features_are_noticed(here: Path):
    [path] = (here / "workspace/representations").glob("*/representations.h5")
    flip_bit(path)
    with pytest.raises(Exception, match="damaged: SHA-256"):
        rela.open_representations()
    assert len(rela.open_representations(verify=False)) == 24


def test_a_plain_script_converts_and_runs_what_embed_prints(here: Path):
    shutil.rmtree(here / "workspace")
    (here / "script.py").write_text(  # no `if __name__ == "__main__"`, though workers are started
        "import rela\nprint(rela.convert('images', workers=2).artifact.name)\n"
    )
    found = run_python("script.py", cwd=here)
    assert (found.stdout, found.stderr) == ("images\n", "")
    printed = run_rela("embed", "--prior", PRIOR["prior"], "--image-size", 32).stdout
    snippet = printed.partition("read them with:\n\n")[2].partition("\nnext: ")[0]
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    lines = run_python("-c", snippet, cwd=elsewhere).stdout
    paths = [path for path in SMALL_TREE if path.startswith("train/")]
    assert [path for path in paths if f"{path} [" in lines] == paths


def test_no_module_hides_a_function_and_types_are_packaged():
    modules = {module.name for module in pkgutil.iter_modules(rela.__path__)}
    assert not modules & set(rela.__all__)
    assert set(rela.__all__) <= set(dir(rela))
    assert (importlib.resources.files("rela") / "py.typed").is_file()
    assert 'rela = ["py.typed", ' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", rela.__all__)
def test_every_function_says_what_it_takes(name: str):
    function: Callable[..., Any] = getattr(rela, name)
    assert function.__doc__ and "MISSING" not in function.__doc__
    returned = inspect.signature(function).return_annotation
    assert returned not in (inspect.Signature.empty, None, Any)


def test_results_are_a_line_and_in_a_notebook_tables(here: Path):
    near = rela.neighbors("images/train/bee/03.png")
    [run] = [rela.resume("first")]
    evaluations = rela.evaluate(protocol="knn20")
    knn = f"{100 * evaluations[0].results['accuracies']['knn20']['top1']:.1f} %"
    prior = f"{PRIOR['prior']}-seed0@32px"
    for result, words in (
        (
            rela.convert("images"),
            "train images 24, val images 12, classes 3, path workspace/datasets/images",
        ),
        (rela.embed(**PRIOR), f"prior {prior}, data set images, split train, rows 24, width 1,024"),
        (run, f"name first, data set images, prior {prior}, method byol, model shufflenet_v2_x0_5"),
        (run.artifact, f"epochs 1, 20-NN {knn}"),
        (evaluations[0], f"run first, data set images, 20-NN {knn}, chance 33.3 %"),
        (rela.export(output="a.safetensors"), "run first, to safetensors, size"),
        (near, "nearest train/bee/03.png"),
        (rela.rank_priors(), "data set images, best"),
        (ReportResult(Path("a.html"), [], ["first"], {}), "runs first, figures 0, page a.html"),
    ):
        assert re.fullmatch(f"<{type(result).__name__}: .*>", repr(result)) and words in repr(
            result
        )
    assert repr(evaluations).startswith(f"<Evaluations: first 20-NN {knn}, prior {prior} 20-NN ")
    assert evaluations.summary.over_run_seeds == []
    status = rela.status()
    assert repr(status) == "<Status: workspace workspace, data sets 1, representations 4, runs 1>"
    for result, words in (
        (status, "hand-over step"),
        (evaluations, knn.removesuffix(" %")),
        (rela.describe(), "36 PNG"),
        (near, "1.0000"),
        (rela.open_representations(split="val", prior=PRIOR["prior"] + "-seed0"), "12"),
        (rela.list_priors(), "embedded for"),
        (rela.list_cache(), "last used"),
        (rela.verify_cache(), "sound"),
        (rela.plan_recipe("recipe.toml", {"photos": "images"}), "there"),
    ):
        assert words in result._repr_html_()


def test_a_backbone_comes_with_the_transform_that_embed_applies(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    """Wider than high, transparent, and smaller than the input: as convert, embed and the run see them."""
    odd = np.random.default_rng(0).integers(0, 256, (20, 50, 4), dtype=np.uint8)
    for i in range(4):
        Image.fromarray(odd[:, i:]).save(here / f"images/train/ant/odd{i}.png")
    rela.convert("images", name="odd")
    embedded = rela.embed("odd", prior="first", dtype="float32").artifact
    features = rela.open_representations(embedded.path)
    exported, run = rela.export(output="a.safetensors"), rela.status().runs[0]["name"]
    monkeypatch.setenv("RELA_WORKSPACE", str(here / "nothing"))
    for which, workspace in (
        (run, "workspace"),
        (None, "workspace"),
        (here / "workspace/runs/first", None),
        ("a.safetensors", None),
        (exported, None),
    ):
        model, transform = rela.load_backbone(which, workspace=workspace)
        assert not model.training
        assert (
            "architecture shufflenet_v2_x0_5, weights 341,792, input 3 × 32 × 32, width 1,024"
            in repr(rela.load_backbone(which, workspace=workspace))
        )
        paths = ["train/ant/odd1.png", "train/bee/03.png"]
        images = torch.stack([transform(Image.open(here / "images" / path)) for path in paths])
        with torch.no_grad():
            found = model(images).numpy()
        np.testing.assert_allclose(found, [features[path] for path in paths], rtol=1e-4, atol=1e-5)
    assert pickle.loads(pickle.dumps(transform))(Image.new("L", (9, 9))).shape == (3, 32, 32)
    with pytest.raises(RelaError, match="8 bits a channel, found mode I;16"):
        transform(Image.new("I;16", (9, 9)))


def test_a_backbone_that_cannot_be_loaded_names_what_can(here: Path):
    rela.export(to="torchvision", output="a.pth")
    for which, words in (
        ("a.pth", "a.pth does not record its architecture and preprocessing; name the run"),
        ("second", "no finished run 'second'"),
    ):
        with pytest.raises(ChoiceError, match=words):
            rela.load_backbone(which)
