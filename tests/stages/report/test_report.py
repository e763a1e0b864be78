"""`rela report`: its page, made from real runs on a few images, in a real browser.

It loads without an error and asks for nothing but itself, figures are visible, a table sorts, a run toggles,
dark and light differ, a phone need not scroll sideways.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run_rela
from pictures import picture
from PIL import Image

from rela.stages.report.run_record import record_of
from rela.stages.workspace.workspace import Workspace

ODD_CLASS = "<b>&bee"  # a folder's name that a page must not take for markup
TINY = ["--model", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "8", "--epochs", "2"]


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


def test_without_umap_the_command_that_installs_it_is_named(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    words = ["report", "--projection", "umap", "--output", tmp_path / "page"]
    assert (
        "pip install 'rela[umap]'"
        in run_rela("--workspace", workspace, *words, exit_code=74).output
    )


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
    assert "found plain, with-prior" in result.output
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
    assert "is not finished; resume it with `rela train --resume --name half`" in message
    for run in ("plain", "with-prior"):
        shutil.rmtree(half.with_name(run))
    message = run_rela(*rela, "report", exit_code=2).output
    assert "resume `rela train --resume --name half` (1 of 2 epochs)" in message


def test_what_is_damaged_elsewhere_is_in_no_reports_way(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace, tmp_path / "workspace")
    rela = ["--workspace", tmp_path / "workspace"]
    half = tmp_path / "workspace" / "runs" / "half"
    shutil.copytree(half.with_name("plain"), half)
    (half / "manifest.json").unlink()
    (half / "config.json").write_text("{}")
    result = run_rela(*rela, "report", "--maps", "0", "--output", tmp_path / "page")
    assert f"skipped: {half / 'config.json'} is damaged" in result.stderr
    assert "half" not in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")

    other = tmp_path / "workspace" / "datasets" / "other"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    shutil.rmtree(half)
    run_rela(*rela, "report", "--maps", "0", "--output", tmp_path / "page")
    damaged = half.with_name("damaged")
    damaged.mkdir()
    for name in ("config.json", "manifest.json"):
        (damaged / name).write_text("{}")
    assert Workspace(tmp_path / "workspace").run("plain").name == "plain"


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
