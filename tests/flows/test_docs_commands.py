"""Every command and every piece of Python in the documentation is run, page by page, as written.

Each page has a directory of its own with images in `path/to/images`, and published weights that were made
here. What is not run says why, in a comment above its block: `<!-- not run: ... -->`. Trainings take small
models where the page names none, and one epoch.
"""

import contextlib
import hashlib
import io
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torchvision.models import ResNet18_Weights, resnet18

from rela.cli import main

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>.*?) -->\n)?```(?P<language>bash|python)\n(?P<text>.*?)```", re.S
)
SMALL = {"model": "shufflenet_v2_x0_5", "image_size": 32, "batch_size": 24, "epochs": 1}
OF_PAGE = {
    "tutorial.md": SMALL | {"model": "timm:test_resnet", "image_size": 16, "batch_size": 128}
}  # with more images


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, text, why it is not run) of every block, in their order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(b["language"], b["text"], b["why"] or "") for b in found]


def commands(text: str) -> list[list[str]]:
    """The commands of a block in words, without comments; continued lines are joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_tree: Path) -> Path:
    """An empty directory but for images, with published weights of resnet18 in torch's cache."""
    place = tmp_path / "place"
    shutil.copytree(small_tree, place / "path" / "to" / "images")
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(0)
    content = io.BytesIO()
    torch.save(resnet18().state_dict(), content)
    # the name of a published file holds the beginning of its digest
    name = f"resnet18-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    (checkpoints / name).write_bytes(content.getvalue())
    monkeypatch.setattr(ResNet18_Weights.DEFAULT.value, "url", f"https://nowhere.invalid/{name}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.chdir(place)
    return place


def run_command(words: list[str], defaults: dict[str, Any]) -> None:
    short = ["1" if words[i - 1] == "--epochs" else word for i, word in enumerate(words)]
    if words[0] == "python" and words[1].startswith("examples/"):
        run_example(REPOSITORY / words[1], [*short[2:], "--workers", "0"])
        return
    assert words[0] == "rela", f"{shlex.join(words)}: mark its block as not run"
    result = CliRunner().invoke(main, short[1:], default_map={"train": defaults})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"


def run_example(script: Path, arguments: list[str]) -> None:
    """It prints an accuracy."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")
    assert re.fullmatch(r"epoch 1: accuracy \d+\.\d %\n", printed.getvalue())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet34", "does not hold the weights of resnet34"),
        ("test_resnet", "write timm:test_resnet"),
    ],
)
def test_the_example_refuses_weights_of_another_model(place: Path, model: str, message: str):
    [weights] = (place.parent / "torch" / "hub" / "checkpoints").iterdir()
    words = [str(weights), "path/to/images", "--model", model, "--workers", "0"]
    with pytest.raises(SystemExit, match=message):
        run_example(REPOSITORY / "examples" / "finetune.py", words)


def run_python(text: str) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, "page", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_works_as_written(page: Path, place: Path):
    for language, text, why in blocks(page):
        if not why and language == "python":
            run_python(text)
        elif not why:
            for words in commands(text):
                run_command(words, OF_PAGE.get(page.name, SMALL))


def test_blocks_are_found():
    page = "a\n```bash\nrela one \\\n  --two  # three\n```\n<!-- not run: no net -->\n```python\nx = 1\n```\n"
    found = [(b["language"], b["text"], b["why"]) for b in BLOCK.finditer(page)]
    assert found == [
        ("bash", "rela one \\\n  --two  # three\n", None),
        ("python", "x = 1\n", "no net"),
    ]
    assert commands(found[0][1]) == [["rela", "one", "--two"]]
    assert sum(len(blocks(page)) for page in PAGES) > 25
