"""`rela report`: its arithmetic in closed forms, its sentences, and its page in a real browser.

The page comes from real runs on a few images: it loads without an error and asks for nothing but itself,
figures are visible, a table sorts, a run toggles, dark and light differ, a phone need not scroll sideways.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import picture, run_rela
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from pipeline.artifact import Artifact
from pipeline.manifest import Manifest
from stages.reporting.feature_map import principal_plane, umap_plane
from stages.reporting.lines import lines_of
from stages.reporting.run_record import RunRecord, record_of
from stages.reporting.savings import ONLINE, cost_of_reaching, overtaking, savings_of
from stages.reporting.words import headline, saving_sentences
from stages.workspace import Workspace

ODD_CLASS = "<b>&bee"  # a folder's name that a page must not take for markup
TINY = ["--model", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "8", "--epochs", "2"]


def test_a_cost_is_interpolated_between_points() -> None:
    curve = ([1.0, 2.0, 4.0], [0.1, 0.3, 0.7])
    assert cost_of_reaching(curve, 0.5) == (3.0, False)
    assert cost_of_reaching(curve, 0.1) == (1.0, True)  # nobody looked before
    assert cost_of_reaching(curve, 0.8) is None
    falls = ([1.0, 2.0, 3.0], [0.2, 0.6, 0.4])
    assert cost_of_reaching(falls, 0.4) == (pytest.approx(1.5), False)


def test_overtaking_is_the_last_crossing() -> None:
    baseline = ([0.0, 10.0], [0.0, 1.0])
    # above, below, above: crosses y = x / 10 at 2.5 downwards, at 6 upwards
    curve = ([0.0, 5.0, 10.0], [0.2, 0.3, 1.4])
    found = overtaking(curve, baseline)
    assert found == pytest.approx(5 + 5 * 0.2 / 0.6)
    assert overtaking(([0.0, 10.0], [0.5, 1.5]), baseline) == 0.0
    assert overtaking(([0.0, 10.0], [0.5, 0.9]), baseline) is None
    assert overtaking(([20.0, 30.0], [0.5, 0.9]), baseline) is None  # no cost in common


def record(
    name: str,
    prior: str = "none",
    seed: int = 0,
    epochs: tuple[float, ...] = (0.1, 0.2),
    accuracies: dict[str, float] | None = None,
    seconds: float = 100.0,
    **changes: Any,
) -> RunRecord:
    """A run of 10 s before and 45 s in each of its epochs, unless `seconds` say otherwise."""
    parameters = {"method": "byol", "model": "net", "batch_size": 10, "crops": None, **changes}
    content = {"prior": None if prior == "none" else prior, "dataset": "pictures"}
    manifest = Manifest("run", name, parameters=parameters, content=content)
    embedded = 0 if prior == "none" else 50
    return RunRecord(
        run=Artifact(Path(name), manifest),
        experiment="one",
        line=f"{prior} {changes}",
        prior=prior,
        seed=seed,
        budget=(len(epochs), 1.0),
        epochs=[
            {"epoch": i, "step": 10 * (i + 1), "epoch_seconds": 30.0, "online_accuracy": value}
            for i, value in enumerate(epochs)
        ],
        seconds={"convert": 4.0, "startup": 6.0, "stage2": seconds - 10},
        total_seconds=seconds,
        accuracies=accuracies or {},
        num_images_seen=100 * len(epochs) + embedded,
        num_images_embedded=embedded,
    )


def test_a_course_begins_after_what_came_before_and_ends_with_the_whole_cost() -> None:
    run = record("a", "net", epochs=(0.1, 0.4, 0.5))
    assert run.course(ONLINE, "seconds") == ([40.0, 70.0, 100.0], [0.1, 0.4, 0.5])
    assert run.course(ONLINE, "images") == ([150.0, 250.0, 350.0], [0.1, 0.4, 0.5])


def test_a_saving_is_the_cost_of_the_baselines_accuracy_over_its_cost() -> None:
    runs = [
        record("b0", seed=0, epochs=(0.1, 0.4)),
        record("b1", seed=1, epochs=(0.1, 0.2)),
        record("r0", "net", 0, epochs=(0.2, 0.6)),  # 0.4 half-way from 55 s to 100 s
        record("r1", "net", 1, epochs=(0.1, 0.5)),  # 0.2 a quarter of that way
    ]
    (by_seconds,) = (s for s in savings_of(runs) if s.cost == "seconds")
    assert by_seconds.measure == ONLINE
    assert by_seconds.aims == {0: 0.4, 1: 0.2}
    assert by_seconds.shares == {0: pytest.approx(0.775), 1: pytest.approx(0.6625)}
    assert by_seconds.mean == pytest.approx((0.775 + 0.6625) / 2)
    assert by_seconds.std == pytest.approx(np.std([0.775, 0.6625], ddof=1))
    sentence = headline([by_seconds], lines_of(runs))
    assert "after 72 ± 8 % of its seconds: a saving of 28 % (2 seeds)" in sentence


def test_evaluated_runs_of_several_budgets_are_compared_by_their_final_accuracy() -> None:
    runs = [
        record("b", accuracies={"knn20": 0.5}, seconds=100, epochs=(0.1,) * 4),
        record("small", "net", accuracies={"knn20": 0.3}, seconds=20, epochs=(0.1,)),
        record("large", "net", accuracies={"knn20": 0.7}, seconds=60, epochs=(0.1,) * 2),
    ]
    found = {s.cost: s for s in savings_of(runs) if s.measure == "knn20"}
    assert found["seconds"].shares == {0: pytest.approx(0.4)}
    assert found["images"].shares == {0: pytest.approx((150 + 250) / 2 / 400)}
    words = saving_sentences(savings_of(runs), lines_of(runs))[0]
    assert words == (
        "net → byol reaches the knn20 accuracy that training without a prior ends with (50.0 %) after 40 % "
        "of its seconds: a saving of 60 % (one seed, so no spread)."
    )


def test_what_was_not_reached_or_not_compared_is_said() -> None:
    never = [record("b", epochs=(0.1, 0.9)), record("r", "net", epochs=(0.2, 0.3))]
    (sentence,) = saving_sentences(savings_of(never), lines_of(never))
    assert "does not reach" in sentence
    assert "No training with a prior reached" in headline(savings_of(never), lines_of(never))
    cheapest = [record("b", epochs=(0.1, 0.2)), record("r", "net", epochs=(0.3, 0.4))]
    assert "a saving of at least 45 %" in headline(savings_of(cheapest), lines_of(cheapest))
    assert "prior none" in headline([], lines_of([record("r", "net")]))
    assert "No run learned from a prior" in headline([], lines_of([record("b")]))


def test_accuracies_that_chance_reaches_are_no_saving() -> None:
    baseline, fast = record("b", epochs=(0.1, 0.11)), record("r", "net", epochs=(0.12, 0.1))
    limits = {"train": 0.12, "val": 0.2}
    runs = [replace(run, by_chance=limits) for run in (baseline, fast)]
    (said,) = saving_sentences(savings_of(runs), lines_of(runs))
    assert said == headline(savings_of(runs), lines_of(runs))
    assert said == (
        "The online accuracy that training without a prior ends with (11.0 %) is no better than chance, so "
        "that reaching it says nothing; train for more --epochs."
    )
    better = [replace(run, accuracies={"knn20": 0.3}) for run in runs]
    assert "knn20 accuracy" in headline(savings_of(better), lines_of(better))
    worse = [replace(run, accuracies={"knn20": 0.2}) for run in runs]
    assert "no better than chance" in headline(savings_of(worse), lines_of(worse))


def test_what_chance_may_reach_comes_from_the_classes_sizes(workspace: Path) -> None:
    opened = Workspace(workspace)
    (dataset,) = opened.datasets()
    found = record_of(opened.run("plain"), dataset)
    third = 1 / 3
    assert found.by_chance == {
        "train": pytest.approx(third + 3 * (third * (1 - third) / 24) ** 0.5),
        "val": pytest.approx(third + 3 * (third * (1 - third) / 12) ** 0.5),
    }
    assert record_of(opened.run("plain")).by_chance == {}


def test_lines_are_told_apart_by_what_differs() -> None:
    lines = lines_of(
        [
            record("b", handover=None),
            record("r", "net", handover=0.5, crops=None),
            record("s", "net", handover=None, crops=8),
        ]
    )
    assert [line.label for line in lines] == [
        "byol", "net → byol, hand-over 0.5", "net → byol, 8 crops, adaptive hand-over",
    ]  # fmt: skip
    assert len({line.colour for line in lines}) == 3


def test_the_plane_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    expected = PCA(2).fit_transform(features)
    found = principal_plane(features)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-9)
    assert principal_plane(features[:1]).shape == (1, 2)


@pytest.mark.filterwarnings("default")  # the package's own
def test_umap_keeps_digits_together() -> None:
    pytest.importorskip("umap")
    digits = load_digits()
    features, labels = digits.data[:600], digits.target[:600]

    def accuracy(plane: np.ndarray[Any, Any]) -> float:
        train, test = slice(0, 400), slice(400, 600)
        classifier = KNeighborsClassifier(5).fit(plane[train], labels[train])
        return float(classifier.score(plane[test], labels[test]))

    plane = umap_plane(features)
    assert plane.shape == (600, 2)
    assert accuracy(plane) > accuracy(principal_plane(features)) + 0.1
    np.testing.assert_array_equal(plane, umap_plane(features))
    np.testing.assert_array_equal(umap_plane(features[:9]), principal_plane(features[:9]))


def test_without_umap_the_command_that_installs_it_is_named(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    words = ["report", "--projection", "umap", "--output", tmp_path / "page"]
    assert (
        "pip install 'rela[umap]'"
        in run_rela("--workspace", workspace, *words, exit_code=74).output
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without and one with a prior on three classes, both evaluated."""
    root = tmp_path_factory.mktemp("report")
    for number, name in enumerate(("ant", ODD_CLASS, "cat") * 12):
        path = root / "pictures" / ("train" if number < 24 else "val") / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, 16, 16)).save(path)
    rela = ["--workspace", root / "workspace"]
    run_rela(*rela, "convert", root / "pictures")
    run_rela(*rela, "train", "--prior", "none", "--name", "plain", *TINY)
    run_rela(
        *rela, "train", "--prior", "random", "--name", "with-prior", "--handover", "0.5", *TINY
    )
    run_rela(*rela, "eval", "--all", "--protocol", "knn20")
    return root / "workspace"


@pytest.fixture(scope="module")
def page(workspace: Path) -> Path:
    output = workspace.parent / "report"
    result = run_rela("--workspace", workspace, "report", "--output", output, "--json")
    found = json.loads(result.stdout)
    assert found["runs"] == ["plain", "with-prior"]
    assert {Path(path).name for path in found["pictures"]} == {
        path.name for path in output.glob("*.png")
    }
    return Path(found["page"])


def test_figures_are_there_as_pictures_too(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    names = re.findall(r'href="([^"]+\.png)"', html)
    assert len(names) > 8
    for name in names:
        with Image.open(page.parent / name) as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 20) or []) > 20, name


def test_a_second_report_says_the_same_but_for_the_time(workspace: Path, page: Path) -> None:
    run_rela("--workspace", workspace, "report", "--output", workspace.parent / "again")

    def untimed(path: Path) -> str:
        return re.sub(r"Page written .*?</p>", "", path.read_text(encoding="utf-8"))

    assert untimed(workspace.parent / "again" / "report.html") == untimed(page)


def test_the_commands_on_the_page_make_the_same_runs(workspace: Path, page: Path) -> None:
    html = page.read_text(encoding="utf-8").replace("&#39;", "'").replace("&amp;", "&")
    commands = re.findall(r"^(?:<pre>)?(rela train .*?)(?:</pre>)?$", html, re.M)
    assert len(commands) == 2
    for command in commands:
        result = run_rela("--workspace", workspace, *shlex.split(command)[1:])
        assert "finished already" in result.stdout, command


def test_names_are_never_taken_for_markup(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert ODD_CLASS not in html
    assert "&lt;b&gt;&amp;bee" in html


def test_one_run_has_a_report_and_another_name_has_none(workspace: Path, tmp_path: Path) -> None:
    result = run_rela(
        "--workspace", workspace, "report", "plain", "--maps", "0", "--output", tmp_path / "one"
    )
    assert "`rela embed pictures --prior resnet18`" in result.stdout
    assert "Nearest neighbours" not in (tmp_path / "one" / "report.html").read_text()
    result = run_rela("--workspace", workspace, "report", "nobody", exit_code=2)
    assert "there is plain, with-prior" in result.output
    result = run_rela("--workspace", tmp_path / "empty", "report", exit_code=2)
    assert "rela train" in result.output


def test_what_is_not_finished_is_shown_and_not_compared(
    workspace: Path, page: Path, tmp_path: Path
) -> None:
    shutil.copytree(workspace, tmp_path / "workspace")
    rela = ["--workspace", tmp_path / "workspace"]
    half = tmp_path / "workspace" / "runs" / "half"
    shutil.copytree(half.with_name("plain"), half)
    (half / "manifest.json").unlink()
    records = (half / "metrics.jsonl").read_text().splitlines()
    (half / "metrics.jsonl").write_text(records[0] + "\n")
    found = json.loads(run_rela(*rela, "report", "--output", tmp_path / "new", "--json").stdout)
    assert found["runs"] == ["plain", "with-prior"]
    html = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    (row,) = re.findall(r"<tr><td>half</td>.*?</tr>", html)
    cells = re.findall(r"<td>(?:<code>)?(.*?)(?:</code>)?</td>", row)
    accuracy = f"{100 * json.loads(records[0])['online_accuracy']:.1f}"
    assert cells == ["half", "1 of 2 epochs", accuracy, "rela train --resume --name half"]
    assert "Not finished" not in page.read_text(encoding="utf-8")

    message = run_rela(*rela, "report", "half", exit_code=2).output
    assert "is not finished; go on with it by `rela train --resume --name half`" in message
    for run in ("plain", "with-prior"):
        shutil.rmtree(half.with_name(run))
    message = run_rela(*rela, "report", exit_code=2).output
    assert "go on with `rela train --resume --name half` (1 of 2 epochs)" in message


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser: Any, page: Path, **options: Any) -> Any:
    """The page in a window of its own, refusing the network; fails if it asks for it, or has errors."""
    window = browser.new_context(**options).new_page()
    wrong: list[str] = []
    window.on("pageerror", lambda error: wrong.append(str(error)))
    window.on("console", lambda message: wrong.append(message.text))
    window.on(
        "request",
        lambda request: (
            None
            if request.url == page.as_uri() or request.url.startswith("data:")
            else wrong.append(request.url)
        ),
    )
    window.goto(page.as_uri())
    assert not wrong
    return window


def test_a_browser_shows_every_figure(browser: Any, page: Path) -> None:
    window = opened(browser, page, viewport={"width": 1280, "height": 800})
    drawings = window.locator("figure > svg").all()
    assert len(drawings) > 8
    for drawing in drawings:
        box = drawing.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 150
        assert drawing.locator("path").count() > 5
    thumbnails = window.locator(".thumbnail img").all()
    assert thumbnails
    assert all(image.evaluate("i => i.complete && i.naturalWidth > 0") for image in thumbnails)
    repeated = window.evaluate(
        "() => { const all = [...document.querySelectorAll('[id]')].map(e => e.id);"
        " return all.filter((id, i) => all.indexOf(id) !== i); }"
    )
    assert not repeated


def test_a_table_sorts_and_a_run_toggles(browser: Any, page: Path) -> None:
    window = opened(browser, page)
    head = window.locator("th", has_text="run").first.locator("button")
    names = (
        "() => [...document.querySelector('table').tBodies[0].rows].map(r => r.cells[1].innerText)"
    )
    head.click()
    assert window.evaluate(names) == ["plain", "with-prior"]
    head.click()
    assert window.evaluate(names) == ["with-prior", "plain"]
    window.locator("th", has_text="images seen").locator("button").click()
    # the same number of images were trained on, and the prior saw some more
    assert window.evaluate(names) == ["plain", "with-prior"]
    box = window.locator("input[data-run='0']")

    def visible(number: int) -> int:
        return sum(s.is_visible() for s in window.locator(f"svg .run-{number} path").all())

    mine, others = visible(0), visible(1)
    assert mine > 5
    box.uncheck()
    assert (visible(0), visible(1)) == (0, others)
    box.check()
    assert (visible(0), visible(1)) == (mine, others)


def test_dark_and_light_have_their_own_colours(browser: Any, page: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        window = opened(browser, page, color_scheme=scheme)
        paper = window.evaluate("() => getComputedStyle(document.body).backgroundColor")
        ink = window.evaluate(
            "() => getComputedStyle(document.querySelector('figure > svg text')).fill"
        )
        stroke = window.evaluate(
            "() => getComputedStyle(document.querySelector('svg .run-1 path')).stroke"
        )
        seen[scheme] = paper, ink, stroke
        luminance = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
        assert abs(luminance[0] - luminance[1]) > 400, "text can be read"
    assert all(a != b for a, b in zip(*seen.values(), strict=True))


def test_a_phone_need_not_scroll_sideways(browser: Any, page: Path) -> None:
    window = opened(browser, page, viewport={"width": 360, "height": 740})
    assert window.evaluate("() => document.documentElement.scrollWidth") <= 360
