"""`rela report`: its page, made from real runs on a few images, in a real browser.

It loads without an error and asks for nothing but itself, figures are visible, a table sorts, a run toggles,
dark and light differ, a phone need not scroll sideways.
"""

import base64
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import read_json, run_rela
from pictures import save_tree
from PIL import Image

from rela.stages.report.run_record import record_of
from rela.stages.workspace.workspace import Workspace

ODD_CLASS = "<b>&bee"  # a folder's name that a page must not take for markup
CAT = "c$\\frac{at$\udce9"  # nor for a formula; and not UTF-8
TINY = [*command_line.TINY, "--epochs", "2"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without and one with a prior on three classes, both evaluated."""
    root = tmp_path_factory.mktemp("report")
    paths = (
        f"{'train' if number < 24 else 'val'}/{name}/{number}.png"
        for number, name in enumerate(
            ("ant", ODD_CLASS, CAT) * 8 + ("ant", ODD_CLASS, CAT, "ant") * 3
        )
    )
    save_tree(root / "pictures", dict.fromkeys(paths, (16, 16)))
    rela = ["--workspace", root / "workspace"]
    run_rela(*rela, "convert", root / "pictures")
    run_rela(*rela, "train", "--prior", "none", "--name", "plain", *TINY)
    prior = ("--prior", "random", "--handover", "0.5")
    run_rela(*rela, "train", *prior, "--name", "with-prior", *TINY)
    run_rela(*rela, "eval", "--all", "--protocol", "knn20")
    return root / "workspace"


@pytest.fixture(scope="module")
def page(workspace: Path) -> Path:
    output = workspace.parent / "report"
    words = ("--workspace", workspace, "report", "--output", output, "--json")
    found = read_json(run_rela(*words))
    assert found["runs"] == ["plain", "with-prior"]
    drawn = {path.name for path in output.glob("*.png")}
    assert {Path(path).name for path in found["pictures"]} == drawn
    return Path(found["page"])


def test_chance_levels_follow_class_sizes(workspace: Path):
    opened = Workspace(workspace)
    (dataset,) = opened.datasets()
    found = record_of(opened.run("plain"), dataset)
    assert found.by_chance == {
        split: pytest.approx(share + 3 * (share * (1 - share) / num_images) ** 0.5)
        for split, share, num_images in (("train", 1 / 3, 24), ("val", 1 / 2, 12))
    }
    assert record_of(opened.run("plain")).by_chance == {}


def test_priors_and_chance_are_in_the_table_and_in_the_figures(workspace: Path, page: Path):
    html = page.read_text(encoding="utf-8")
    words = ("--workspace", workspace, "eval", "with-prior", "--protocol", "knn20", "--json")
    [run] = read_json(run_rela(*words))["evaluations"]
    top1 = 100 * run["prior"]["results"]["accuracies"]["knn20"]["top1"]
    name = f"prior random:{command_line.TINY[1]}-seed0@32px"
    rows = re.findall(
        r"<tr><td>(?:<span.*?</span>)?(.*?)</td><td>(.*?)</td><td.*?>(.*?)</td>", html
    )
    assert (name, "–", f"{top1:.1f}") in rows and ("chance", "–", "50.0") in rows
    for label in (f"{name}: {top1:.1f} %", "chance: 50.0 %"):
        assert html.count(f">{label}</text>") == 2, label  # against seconds and images
    assert html.count(">chance: 33.3 %</text>") == 3  # of training images: online accuracy
    for line in read_json(run_rela(*words))["below_chance"]:
        assert f"{100 * line['top1']:.2f} % by 20-NN is no better than chance" in html
    size = f"<td>{run['speed']['num_parameters']:,}, "
    speed = f"{run['speed']['images_per_second']:,.0f} per core at"
    assert html.count(size) == html.count(speed) == 2  # prior and student are of one architecture


def test_without_umap_the_command_that_installs_it_is_named(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "umap", None)
    words = ["report", "--projection", "umap", "--output", tmp_path / "page"]
    said = run_rela("--workspace", workspace, *words, exit_code=74).output
    assert "pip install 'rela[umap]'" in said


def test_figures_are_there_as_pictures_too(page: Path):
    html = page.read_text(encoding="utf-8")
    names = re.findall(r'href="([^"]+\.png)"', html)
    assert len(names) > 8
    for name in names:
        with Image.open(page.parent / name) as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 20) or []) > 20, name


def test_a_second_report_says_the_same_but_for_the_time(workspace: Path, page: Path):
    run_rela("--workspace", workspace, "report", "--output", workspace.parent / "again")

    def untimed(path: Path) -> str:
        return re.sub(r"Page written .*?</p>", "", path.read_text(encoding="utf-8"))

    assert untimed(workspace.parent / "again" / "report.html") == untimed(page)


def test_a_report_about_other_runs_is_not_overwritten(workspace: Path, page: Path):
    before = page.read_bytes()
    words = ("--workspace", workspace, "report", "plain", "--maps", "0", "--output", page.parent)
    said = run_rela(*words, exit_code=2).output
    assert "is a report about other runs" in said and f"--output {page.parent}-2" in said
    assert page.read_bytes() == before


def test_accuracy_and_cost_follow_the_name_and_the_images_are_shown(workspace: Path, page: Path):
    html = page.read_text(encoding="utf-8")
    head = re.findall(r"<th[^>]*>([^<]*)</th>", html.split("<h2>Runs</h2>")[1])
    assert head[:5] == ["shown", "run", "20-NN %", "seconds", "images seen"]
    (sheet,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="Some images', html)
    stored = workspace / "datasets" / "pictures" / "contact_sheet.png"
    assert base64.b64decode(sheet) == stored.read_bytes()


def test_the_commands_on_the_page_make_the_same_runs(workspace: Path, page: Path):
    html = page.read_text(encoding="utf-8").replace("&#39;", "'").replace("&amp;", "&")
    commands = re.findall(r"^(?:<pre>)?(rela train .*?)(?:</pre>)?$", html, re.M)
    assert len(commands) == 2
    for command in commands:
        result = run_rela("--workspace", workspace, *shlex.split(command)[1:])
        assert "already finished" in result.stdout, command


def test_names_are_never_taken_for_markup(page: Path):
    html = page.read_text(encoding="utf-8")
    assert ODD_CLASS not in html and "&lt;b&gt;&amp;bee" in html


def test_one_run_has_a_report_and_another_name_has_none(workspace: Path, tmp_path: Path):
    words = ("report", "plain", "--maps", "0", "--output", tmp_path / "one")
    result = run_rela("--workspace", workspace, *words)
    assert " embed pictures --prior resnet18`" in result.stdout
    assert "Nearest neighbours" not in (tmp_path / "one" / "report.html").read_text()
    result = run_rela("--workspace", workspace, "report", "nobody", exit_code=2)
    assert "found plain, with-prior" in result.output
    result = run_rela("--workspace", tmp_path / "empty", "report", exit_code=2)
    assert " train" in result.output


@pytest.fixture
def half(workspace: Path, tmp_path: Path) -> Path:
    """An unfinished run, in a copy of the workspace."""
    shutil.copytree(workspace, tmp_path / "workspace")
    half = tmp_path / "workspace" / "runs" / "half"
    shutil.copytree(half.with_name("plain"), half)
    (half / "manifest.json").unlink()
    return half


def test_unfinished_runs_are_shown_and_not_compared(half: Path, page: Path, tmp_path: Path):
    rela = ["--workspace", tmp_path / "workspace"]
    records = (half / "metrics.jsonl").read_text().splitlines()
    (half / "metrics.jsonl").write_text(records[0] + "\n")
    found = read_json(run_rela(*rela, "report", "--output", tmp_path / "new", "--json"))
    assert found["runs"] == ["plain", "with-prior"]
    html = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    (row,) = re.findall(r"<tr><td>half</td>.*?</tr>", html)
    cells = re.findall(r"<td>(?:<code>)?(.*?)(?:</code>)?</td>", row)
    accuracy = f"{100 * json.loads(records[0])['online_accuracy']:.1f}"
    assert cells == ["half", "1 of 2 epochs", accuracy, "rela train --resume --name half"]
    assert "Not finished" not in page.read_text(encoding="utf-8")

    message = run_rela(*rela, "report", "half", exit_code=2).output
    assert (
        " train --resume --name half`" in message and "is not finished; resume it with" in message
    )
    for run in ("plain", "with-prior"):
        shutil.rmtree(half.with_name(run))
    message = run_rela(*rela, "report", exit_code=2).output
    assert " train --resume --name half` (1 of 2 epochs)" in message


def test_damage_elsewhere_does_not_stop_a_report(half: Path, tmp_path: Path):
    rela = ["--workspace", tmp_path / "workspace"]
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
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    window.goto(page.as_uri())
    assert not wrong
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    return window


def test_a_browser_shows_every_figure(browser: Any, page: Path):
    window = opened(browser, page, viewport={"width": 1280, "height": 800})
    drawings = window.locator("figure > svg").all()
    assert len(drawings) > 8
    for drawing in drawings:
        box = drawing.bounding_box()
        assert box["width"] > 300 and box["height"] > 150
        assert drawing.locator("path").count() > 5
    thumbnails = window.locator(".thumbnail img").all()
    assert thumbnails
    assert all(image.evaluate("i => i.complete && i.naturalWidth > 0") for image in thumbnails)
    repeated = window.evaluate(
        "() => { const all = [...document.querySelectorAll('[id]')].map(e => e.id);"
        " return all.filter((id, i) => all.indexOf(id) !== i); }"
    )
    assert not repeated


def test_no_other_script_than_the_page_s_own_runs(browser: Any, page: Path):
    window = opened(browser, page)
    for markup in (
        "<img src='data:,' onerror='window.ran = 1'>",
        "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
        "<a href='javascript:window.ran = 1'>x</a>",
    ):
        window.evaluate("markup => document.body.insertAdjacentHTML('beforeend', markup)", markup)
    window.evaluate("() => document.querySelector('body > a').click()")
    window.wait_for_timeout(100)
    assert window.evaluate("() => window.ran") is None
    assert r"c$\frac{at$\udce9" in window.content()


def test_a_table_sorts_and_a_run_toggles(browser: Any, page: Path):
    window = opened(browser, page)
    table = window.locator("table", has=window.locator("input[data-run]"))
    head = table.locator("th", has_text="run").first.locator("button")
    rows = "[...document.querySelector('input[data-run]').closest('table').tBodies[0].rows]"
    names = f"() => {rows}.map(r => r.cells[1].innerText)"
    head.click()
    assert window.evaluate(names) == ["plain", "with-prior"]
    head.click()
    assert window.evaluate(names) == ["with-prior", "plain"]
    table.locator("th", has_text="images seen").locator("button").click()
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


def test_dark_and_light_have_their_own_colours(browser: Any, page: Path):
    seen = {}
    for scheme in ("light", "dark"):
        window = opened(browser, page, color_scheme=scheme)
        styles = (
            ("body", "backgroundColor"),
            ("figure > svg text", "fill"),
            ("svg .run-1 path", "stroke"),
        )
        seen[scheme] = [
            window.evaluate(f"() => getComputedStyle(document.querySelector('{which}')).{style}")
            for which, style in styles
        ]
        luminance = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in seen[scheme][:2]]
        assert abs(luminance[0] - luminance[1]) > 400, "text can be read"
    assert all(a != b for a, b in zip(*seen.values(), strict=True))


def test_a_phone_need_not_scroll_sideways(browser: Any, page: Path):
    window = opened(browser, page, viewport={"width": 360, "height": 740})
    assert window.evaluate("() => document.documentElement.scrollWidth") <= 360
