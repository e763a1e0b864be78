"""Reading recipes: tables become jobs, and mistakes are reported before anything runs.

Covers: order of tables and sweeps, defaults and presets against the command line's, variables and
paths, who needs whom, combined priors, every kind of mistake with its words, all recipes of `recipes/`.
"""

import itertools
import re
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import Rela, run_rela

from rela.errors import ChoiceError, RelaError
from rela.stages.presets import PRESETS
from rela.stages.recipe.jobs import Job, load_recipe
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
CONVERT = '[[convert]]\nsource = "images"\n'
Load = Callable[..., list[Job]]


@pytest.fixture
def load(tmp_path: Path, small_tree: Path) -> Load:
    """load(text, name=value, ...) → the jobs of a recipe with this text, beside a folder `images`."""

    def load_text(text: str, **given: str) -> list[Job]:
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return load_recipe(path, Workspace(tmp_path / "workspace"), given)

    return load_text


def test_tables_run_in_the_order_of_the_file_and_sweeps_as_written(load: Load):
    jobs = load(
        CONVERT
        + '[[train]]\nseed = [3, 1]\nprior = ["none", "random"]\ndata_ratio = [0.5, 1, 0.25]\n'
        '[[embed]]\nprior = "random:resnet18"\n[[train]]\nprior = "none"\n[[ eval ]]\n'
    )
    stages = ["convert", *["train"] * 12, "embed", "train", *["eval"] * 13]
    assert [job.stage for job in jobs] == stages
    found = [(j.settings.seed, j.settings.prior, j.settings.data_ratio) for j in jobs[1:13]]
    assert found == list(itertools.product((3, 1), ("none", "random"), (0.5, 1.0, 0.25)))
    assert all(type(ratio) is float for *_, ratio in found)
    assert [job.trained_by for job in jobs[15:]] == [*range(1, 13), 14]
    assert jobs[14].settings == TrainSettings(prior="none")
    assert "line 9" in jobs[14].where


@pytest.mark.parametrize("name", PRESETS)
def test_written_settings_override_a_preset(load: Load, name: str):
    train = f'[[train]]\nprior = "none"\npreset = "{name}"\n'
    preset, ours = (load(CONVERT + train + more)[1].settings for more in ("", "epochs = 7\n"))
    chosen = {k: v for k, v in asdict(preset).items() if v != getattr(TrainSettings(), k)}
    expected = {k: v for k, v in PRESETS[name].items() if v != getattr(TrainSettings(), k)}
    assert chosen == {**expected, "prior": "none"}
    assert ours == TrainSettings(**{**asdict(preset), "epochs": 7})


def test_presets_are_the_papers():
    sizes = {name: (p["image_size"], p["batch_size"], p["epochs"]) for name, p in PRESETS.items()}
    assert sizes == {
        "cifar10": (32, 128, 100), "cifar100": (32, 128, 100), "tinyimagenet": (64, 128, 100),
        "imagenet1k": (224, 512, 100), "imagenet21k": (224, 512, 100), "celebahq": (224, 128, 100),
    }  # fmt: skip


def test_options_override_a_preset(rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    train = "rela.stages.train.train.train"
    monkeypatch.setattr(train, lambda workspace, request, say: seen.append(request))
    monkeypatch.setattr("rela.stages.commandline.options.print_result", lambda *arguments: None)
    rela("train", "--prior", "none", "--preset", "imagenet1k", "--batch-size", "128")
    assert (seen[0].model, seen[0].image_size, seen[0].batch_size) == ("resnet50", 224, 128)
    assert "--preset" in rela("train", "--resume", "--preset", "cifar10", exit_code=2).stderr


def test_variables_and_paths(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere" / "images").mkdir(parents=True)
    for name in ("a.pt", "resnet50.pt"):
        (tmp_path / name).touch()
    text = '[variables]\nfolder = "."\nbest = "resnet50"\n[[convert]]\nsource = "{folder}/images"\n'
    text += '[[embed]]\nprior = ["file:a.pt", "{best}"]\nweights = "{best}.pt"\n'
    monkeypatch.chdir(tmp_path / "elsewhere")
    convert, first, second = load(text)
    assert convert.request.source == tmp_path / "images"  # the recipe's folder
    assert first.request.prior == f"file:{tmp_path / 'a.pt'}"
    assert second.request.prior == "resnet50"
    assert second.request.weights == tmp_path / "resnet50.pt"
    convert, _, _ = load(text, folder="../elsewhere")  # typed, so from where one stands
    assert convert.request.source.resolve() == tmp_path / "elsewhere" / "images"


def test_jobs_need_what_makes_their_inputs(load: Load, tmp_path: Path):
    (tmp_path / "best.pt").touch()
    *_, warm = load(
        TRAIN + 'name = "first"\nprior = "none"\n[[train]]\nprior = "none"\ninit = "first"\n'
    )
    assert warm.needs == (0, 1)
    assert load(TRAIN + 'init = "best.pt"\n')[1].settings.init == str(tmp_path / "best.pt")
    jobs = load(
        CONVERT + 'name = "one"\n' + CONVERT + 'name = "two"\n'
        '[[train]]\ndataset = "one"\nname = "teacher"\nprior = "none"\n'
        '[[embed]]\ndataset = "two"\nprior = "resnet50"\nweights = "best.pt"\n'
        '[[train]]\ndataset = "two"\nprior = ["teacher", "resnet50@best.pt", "teacher+resnet18"]\n'
        '[[eval]]\nrun = "teacher"\ndataset = "two"\n'
    )  # fmt: skip
    assert [job.needs for job in jobs] == [(), (), (0,), (1,), (1, 2), (1, 3), (1, 2), (1, 2)]


def test_priors_in_a_list_within_the_list_are_combined(load: Load):
    text = CONVERT + '[[train]]\nprior = ["resnet18", ["resnet18", "resnet50"]]\n'
    assert [job.settings.prior for job in load(text)[1:]] == ["resnet18", "resnet18+resnet50"]


def test_protocols_are_taken_together(load: Load):
    text = CONVERT + '[[train]]\nprior = "none"\n[[eval]]\n'
    text += 'protocol = ["knn20", "linear-reference"]\nbatch_size = 7\n'
    [job] = [job for job in load(text) if job.stage == "eval"]
    assert job.settings.protocol == ("knn20", "linear-reference")
    assert job.request.batch_size == 7


TRAIN = CONVERT + "[[train]]\n"
EMBED = CONVERT + '[[embed]]\nprior = "resnet18"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["has no jobs", "[[train]]"]),
        ("[[train]\n", ["is not TOML"]),
        ("[[fit]]\n", ["unknown table 'fit'", "[[eval]]"]),
        ("[train]\nseed = 1\n", ["two brackets"]),
        ("train = [{seed = 1}]\n", ["its own line"]),
        ("[variables]\na = 1\n" + CONVERT, ["[variables]", "a = 1"]),
        ("[[convert]]\n", ["line 1, [[convert]]", "source is missing"]),
        ('[[convert]]\nsource = "nowhere"\n', ["nowhere", "found nothing"]),
        ('[[convert]]\nsource = "{where}"\n', ["{where}", "--set where=VALUE"]),
        (CONVERT + CONVERT, ["line 3", "images is converted twice"]),
        (TRAIN + "epoch = 3\n", ["line 3, [[train]]", "'epoch'", "did you mean epochs?"]),
        (TRAIN + 'epochs = "3"\n', ["epochs = '3'", "an integer"]),
        (TRAIN + "epochs = true\n", ["epochs = true", "an integer"]),
        (TRAIN + "epochs = [1, 2.5]\n", ["epochs = 2.5", "an integer"]),
        (TRAIN + "epochs = []\n", ["epochs = []", "no values"]),
        (TRAIN + "epochs = [[1, 2]]\n", ["epochs = [1, 2]"]),
        (TRAIN + "epochs = 0\n", ["--epochs 0: expected an integer of at least 1"]),
        (TRAIN + 'method = "bjol"\n', ["--method bjol: expected one of", "byol"]),
        (TRAIN + 'model = "resnt18"\n', ["'resnt18'", "resnet18"]),
        (TRAIN + 'prior = "resnet188"\n', ["no model 'resnet188'", "did you mean resnet18"]),
        (TRAIN + 'prior = [["resnet18", "resnt50"]]\n', ["no model 'resnt50'", "resnet50"]),
        (TRAIN + "data_ratio = 0\n", ["--data-ratio 0.0"]),
        (TRAIN + "accumulate = 3\n", ["--accumulate 3"]),
        (TRAIN + 'method = "none"\nprior = "none"\n', ["stage 1 only"]),
        (TRAIN + 'preset = "cifar"\n', ["no preset 'cifar'", "cifar10"]),
        (TRAIN + 'dataset = "other"\n', ["no data set 'other'"]),
        (TRAIN + 'name = "x"\nseed = [0, 1]\n', ["x is trained twice", "sweep (seed)"]),
        (CONVERT + "[[embed]]\n", ["prior is missing"]),
        (CONVERT + '[[embed]]\nprior = "file:x.pt"\n', ["x.pt: no such weights file"]),
        (CONVERT + '[[embed]]\nprior = "x"\nweights = "y.pt"\n', ["y.pt: no such weights file"]),
        (CONVERT + '[[embed]]\nprior = "x"\nsplit = "test"\n', ["one of train, val"]),
        (CONVERT + "[[eval]]\n", ["there is no [[train]] above"]),
        (CONVERT + '[[eval]]\nrun = "x"\n', ["no finished run 'x'"]),
        (TRAIN + '[[eval]]\nprotocol = ["knn"]\n', ["--protocol", "knn20"]),
        (TRAIN + '[[eval]]\nprotocol = "segmentation"\n', ["--voc"]),
        ('[[train]]\nprior = "none"\n', ["no data set", "rela convert"]),
        ("epochs = 3\n" + TRAIN, ["'epochs' is in no table", "[[train]]"]),
        (TRAIN + 'engine = "auto"\n', ["unknown key 'engine'; it belongs to [[embed]] and [[eval]]"]),
        (TRAIN + 'init = "resnet188"\n', ["no model 'resnet188'", "did you mean resnet18"]),
        (TRAIN + 'init = "own.pth"\n', ["own.pth: no such weights file"]),
        (TRAIN + 'init = "file:own"\n', ["own: no such weights file"]),
        (TRAIN + 'init = "run:x"\n', ["no finished run 'x'"]),
        (TRAIN + 'prior = "resnet18"\nlayer = "layr3"\n', ["did you mean layer3"]),
        (EMBED + 'layer = ["layer2", "layr3"]\n', ["did you mean layer3"]),
        (EMBED + 'layer = "layer2,layer3"\n', ["give each by itself"]),
        (EMBED + "dense_width = 5\n", ["--dense-width requires --dense"]),
        (EMBED + 'dense = "7"\n', ["dense = '7': expected an integer"]),
        (EMBED + 'precision = "fp16"\n', ["--precision fp16", "bf16"]),
        (CONVERT + 'name = "a"\n' + CONVERT + 'name = "b"\n[[train]]\n', ["name one of a, b"]),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_runs(
    load: Load, tmp_path: Path, text: str, words: list[str]
):
    with pytest.raises(ChoiceError) as raised:
        load(text)
    message = str(raised.value)
    for word in ("recipe.toml", *words):
        assert word in message
    assert "\n" not in message
    assert not (tmp_path / "workspace").exists()


def test_an_unused_variable_is_refused(load: Load):
    with pytest.raises(ChoiceError, match="did you mean source_folder"):
        load('[[convert]]\nsource = "{source_folder}"\n', source_folder="images", surce_folder="x")


@pytest.mark.parametrize("text", ["images", "=x", "a b=c"])
def test_an_assignment_is_name_and_value(text: str):
    assert "NAME=VALUE" in run_rela("run", "x.toml", "--set", text, exit_code=2).stderr


def test_a_missing_recipe_is_an_input_error(tmp_path: Path):
    assert "x.toml" in run_rela("run", tmp_path / "x.toml", exit_code=74).stderr


def test_recipes_of_rela_are_found_by_name_and_a_file_of_that_name_comes_first(
    tmp_path: Path, small_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    given = Workspace(tmp_path / "workspace"), {"images": str(small_tree)}, said.append
    found = [
        [job.what for job in load_recipe(Path(name), *given)] for name in ("small", RECIPES[-2])
    ]
    assert RECIPES[-2].stem == "small" and found[0] == found[1]
    assert [Path(line.removeprefix("recipe ")).read_text() for line in said] == [
        RECIPES[-2].read_text()
    ]
    Path("small").write_text('[[convert]]\nsource = "{images}"\n')
    assert [job.stage for job in load_recipe(Path("small"), *given)] == ["convert"]
    assert len(said) == 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_loads(path: Path, tmp_path: Path, small_tree: Path):
    (small_tree / "byol-imagenet1k.safetensors").touch()
    defaults = tomllib.loads(path.read_text()).get("variables", {})
    names = set(re.findall(r"\{(\w+)\}", path.read_text())) - defaults.keys()
    given = dict.fromkeys(names, str(small_tree))
    jobs = load_recipe(path, Workspace(tmp_path / "workspace"), given)
    assert set(re.findall(r"--set (\w+)=", path.read_text())) - defaults.keys() == names
    assert f"`{path.stem}`" in (RECIPES[0].parent.parent / "docs" / "recipes.md").read_text()
    if path.stem in PRESETS:
        check_main_table(path, jobs)


def check_main_table(path: Path, jobs: list[Job]) -> None:
    """Budgets, priors and seeds of the paper's main table, on the recipe's own data set."""
    runs = [j for j in jobs if j.stage == "train" and j.request.name is None]
    assert {job.request.dataset for job in runs} == {path.stem}
    found = sorted((str(j.settings.prior), j.settings.data_ratio, j.settings.seed) for j in runs)
    sources = ("cifar10", "cifar100", "tinyimagenet", "imagenet1k")
    priors = ("none", "random", "clip:RN50", *(f"byol-{source}" for source in sources))
    expected = [*itertools.product(priors, (0.1, 0.2, 0.5), range(3))]
    assert found == sorted([*expected, *(("none", 1.0, seed) for seed in range(3))])
    for job in runs:
        preset = PRESETS[path.stem]
        assert asdict(job.settings).items() >= preset.items()
        expected = {
            "method": "byol",
            "head": "fixed",
            "handover": None,
            "hyperparameters": "reference",
        }
        assert asdict(job.settings).items() >= expected.items()


def test_the_documented_example_loads(load: Load, small_tree: Path):
    text = (RECIPES[0].parent.parent / "docs" / "recipes.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", text, re.S)
    assert tomllib.loads(example)
    jobs = load(example, photos=str(small_tree))
    assert [job.stage for job in jobs] == ["convert", *["train"] * 12, *["eval"] * 12]


def test_embedding_options_of_a_table_reach_the_stage(load: Load):
    text = CONVERT + '[[embed]]\nprior = "random:resnet18"\nseed = 4\ncrops = 2\nlayer = "layer3"\n'
    job = load(text)[1]
    assert job.settings == EmbedSettings(crops=2)
    assert (job.request.seed, job.request.layer) == (4, ("layer3",))
    with pytest.raises(RelaError, match="--crops -1"):
        load(text.replace("crops = 2", "crops = -1"))
