"""Running recipes: everything once, what is missing afterwards, and failures told at the end.

Covers: the small recipe whole (jobs, results against the runs' own files), a second pass that makes
nothing, one deleted run, a failing job with those that need it, the dry run (states, nothing
written), being told to make room, results over seeds.
"""

import shutil
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from command_line import Rela, read_json
from pictures import MakeTree

import rela.training.run as training
from rela.errors import DataError, PreemptedError
from rela.stages.recipe import kinds
from rela.stages.train.processes import RankFailedError

SMALL = Path(__file__).parents[3] / "recipes" / "small.toml"
TINIER = "shufflenet_v2_x0_5", "timm:test_resnet"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the trainings of every run, by its name."""
    calls: Counter[str] = Counter()
    original = training.run_training

    def counted(plan: Any, directory: Path, *args: Any) -> Any:
        calls[directory.name] += 1
        return original(plan, directory, *args)

    monkeypatch.setattr(training, "run_training", counted)
    return calls


def states(result: Result) -> list[tuple[str, str]]:
    return [(job["job"], job["state"]) for job in read_json(result)["jobs"]]


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_the_small_recipe_runs_once_and_then_what_is_missing(
    rela: Rela, make_tree: MakeTree, tmp_path: Path, trained: Counter[str]
):
    make_tree(
        {f"{s}/{c}/{i}.png": (8, 8) for s, n in (("train", 32), ("val", 4)) for c in "ab" for i in range(n)},
        "pictures",
    )  # fmt: skip
    (tmp_path / "small.toml").write_text(SMALL.read_text().replace(*TINIER))
    command = ("run", "small.toml", "--set", "images=pictures", "--json")
    planned = rela(*command, "--dry-run", "--no-measure")
    stages = ["convert"] + 8 * ["train"] + 8 * ["eval"]
    assert states(planned) == [(name, "to do") for name in stages]
    assert read_json(planned)["num_unknown"] == 17
    assert not (tmp_path / "workspace").exists()

    first = rela(*command)
    assert states(first) == [(name, "made") for name in stages]
    assert trained == {f"small-byol-{number}": 1 for number in range(1, 9)}
    check_results(read_json(first)["results"], tmp_path / "workspace" / "runs")
    prior, chance = read_json(first)["references"]
    name = prior["name"].removeprefix("prior ")
    asked = ("--prior", name, "--image-size", 32, "--dataset", "small", "--json")
    by_itself = read_json(rela("eval", *asked))
    expected = by_itself["evaluations"][0]["results"]["accuracies"]
    for protocol in ("knn20", "linear"):
        assert prior["accuracies"][protocol]["mean"] == expected[protocol]["top1"]
        assert chance["accuracies"][protocol]["mean"] == 0.5  # two classes of the same size
    assert sum("why not just use" in note for note in read_json(first)["notes"]) == 1

    trained.clear()
    before = everything_in(tmp_path / "workspace")
    again = rela(*command)
    assert states(again) == [(name, "was there") for name in stages]
    planned = rela(*command, "--dry-run")
    assert states(planned) == [(name, "there") for name in stages]
    assert read_json(planned)["seconds"] == 0
    assert everything_in(tmp_path / "workspace") == before
    assert not trained
    assert read_json(again)["results"] == read_json(first)["results"]

    shutil.rmtree(tmp_path / "workspace/runs/small-byol-3")  # the third job of the sweep
    planned = rela(*command, "--dry-run", "--no-measure")
    missing = {stages.index("train") + 2, stages.index("eval") + 2}
    for found, expected in ((planned, ("there", "to do")), (rela(*command), ("was there", "made"))):
        wanted = [(name, expected[i in missing]) for i, name in enumerate(stages)]
        assert states(found) == wanted
    assert all(job["seconds"] is not None for job in read_json(planned)["jobs"])
    assert trained == {"small-byol-3": 1}


def test_a_dry_run_finds_features_of_the_same_files_under_another_name(
    rela: Rela, images: Path, tmp_path: Path
):
    prior = "random:timm:test_resnet"
    recipe = tmp_path / "two.toml"
    recipe.write_text(
        f'[[convert]]\nsource = "{images}"\nname = "again"\n[[embed]]\nprior = "{prior}"\n[[train]]\n'
        f'prior = "{prior}"\nmodel = "timm:test_resnet"\nbatch_size = 8\nepochs = 1\n'
    )
    command = ("run", recipe, "--dry-run", "--no-measure")
    words = rela(*command).stdout
    assert "3 of 3 jobs to do; 2 of them could not be estimated; the others: about" in words
    rela("embed", "images", "--prior", prior)
    assert states(rela(*command, "--json")) == [
        ("convert", "to do"), ("embed", "there"), ("train", "to do"),
    ]  # fmt: skip
    rela("run", recipe)
    assert [state for _, state in states(rela(*command, "--json"))] == 3 * ["there"]


def check_results(rows: list[dict[str, Any]], runs: Path) -> None:
    """Every row against what its runs wrote themselves."""
    groups = [(row["prior"].split(":")[0], row["data_ratio"], row["seeds"]) for row in rows]
    assert groups == [(p, r, [0, 1]) for p in ("none", "random") for r in (0.5, 1.0)]
    for row in rows:
        for protocol in ("knn20", "linear"):
            files = [read_json(runs / r / "eval.json") for r in row["runs"]]
            values = [file["accuracies"][protocol]["top1"] for file in files]
            found = row["accuracies"][protocol]
            assert found["mean"] == pytest.approx(sum(values) / 2)
            assert found["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        seconds = [read_json(runs / r / "cost.json")["total_seconds"] for r in row["runs"]]
        assert row["seconds"]["mean"] == pytest.approx(statistics.fmean(seconds))


def test_a_failing_job_stops_only_what_needs_it(
    rela: Rela, small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[[convert]]\nsource = "images"\n[[train]]\nprior = "none"\nseed = [0, 1, 2]\n'
        'model = "timm:test_resnet"\nimage_size = 32\nbatch_size = 8\nepochs = 1\n[[eval]]\n'
    )
    original = training.run_training

    def failing(plan: Any, *args: Any) -> Any:
        if plan.seed == 1:
            raise DataError("the second one is bad")
        if plan.seed == 2:
            raise KeyError("a defect")
        return original(plan, *args)

    with monkeypatch.context() as patched:
        patched.setattr(training, "run_training", failing)
        result = rela("run", recipe, "--json", exit_code=65)
    train = [("train", "made"), ("train", "failed"), ("train", "failed")]
    evals = [("eval", "made"), ("eval", "not run"), ("eval", "not run")]
    assert states(result) == [("convert", "made"), *train, *evals]
    end = result.stderr[result.stderr.index("rela: 2 of 7 jobs failed") :]
    for words in (
        "2 that depend on them were not run",
        "the second one is bad",
        "KeyError: 'a defect'",
    ):
        assert words in end
    assert "Traceback" in result.stderr  # of the defect
    assert read_json(result)["jobs"][5]["message"].startswith("needs train images")
    mended = rela("run", recipe)
    assert (mended.stdout.count("was there"), mended.stdout.count("made")) == (3, 4)
    table = mended.stdout[mended.stdout.index("20-NN %") :]
    assert "0, 1, 2" in table


def test_a_dry_run_measures_unknown_speeds(rela: Rela, small_tree: Path, tmp_path: Path):
    command = ("run", SMALL, "--set", "images=images", "--dry-run", "--json")
    small = tmp_path / "recipe.toml"
    small.write_text(SMALL.read_text().replace("batch_size = 32", "batch_size = 4"))
    result = rela(*command[:1], small, *command[2:])
    plan = read_json(result)
    assert plan["num_unknown"] == 0
    assert all(job["basis"] == "measured now" for job in plan["jobs"])
    half, whole = (plan["jobs"][i]["seconds"] for i in (1, 3))  # 3 and 6 steps per epoch
    assert whole == pytest.approx(2 * half)
    assert plan["seconds"] == pytest.approx(sum(job["seconds"] for job in plan["jobs"]), abs=0.1)
    assert not (tmp_path / "workspace").exists()
    assert "measuring" in result.stderr


@pytest.mark.parametrize(
    "told", [PreemptedError("SIGTERM: saved"), RankFailedError("process 1 made room", 75)]
)
def test_a_preempted_recipe_ends(
    rela: Rela, small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Exception
):
    recipe = tmp_path / "recipe.toml"
    job = '[[train]]\nname = "{}"\nprior = "none"\nepochs = 1\n'
    recipe.write_text('[[convert]]\nsource = "images"\n' + job.format("one") + job.format("two"))
    names = []

    def train(workspace: Any, request: Any, say: Any) -> None:
        names.append(request.name)
        raise told

    monkeypatch.setattr(kinds, "train", train)
    assert rela("run", recipe, exit_code=75).stderr.endswith(f"rela: {told}\n")
    assert names == ["one"]


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "2"},
    ],
)
def test_a_recipe_is_started_once(
    rela: Rela, small_tree: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    message = rela("run", SMALL, "--set", "images=images", exit_code=2).stderr
    assert "start it once" in message
