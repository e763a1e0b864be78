"""rela as installed from its wheel and its sdist, beside a user's own files.

- one import name: beside `pipeline/`, `stages/` and `cli.py` the functions work, and a training on two
  devices is one run by rela's own command line, not the user's;
- the wheel, the wheel of the sdist and the checkout hold the same modules; tests are left out.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from command_line import REPOSITORY, run_python

from rela.training.run_directory import read_records

PARTS = (
    "rela", "stages", "pipeline", "recipes", "tests", "cli.py", "pyproject.toml", "MANIFEST.in", "README.md",
    "LICENSE",
)  # fmt: skip
BUILD = "import sys, setuptools.build_meta as backend; getattr(backend, 'build_' + sys.argv[1])(sys.argv[2])"
SCRIPT = """
import rela
assert rela.__file__.startswith({site!r}), rela.__file__
rela.convert("images")
rela.status()
run = rela.train(
    prior="none", model="shufflenet_v2_x0_5", image_size=32, batch_size=8, epochs=2, devices="2",
    logger="none", name="first",
)
assert run.artifact.name == "first"
"""


def build(kind: str, source: Path, out: Path) -> Path:
    """The wheel or sdist of the project in `source`."""
    subprocess.run(
        [sys.executable, "-c", BUILD, kind, out], cwd=source, check=True, capture_output=True
    )
    [built] = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, links as links."""
    root = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, root / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, root / name)
    return root


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", project, tmp_path_factory.mktemp("wheel"))


def test_only_rela_is_installed_beside_a_users_own_files(
    wheel: Path, small_tree: Path, tmp_path: Path
):
    site, user = tmp_path / "site", small_tree.parent
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"rela"}
    for folder in ("pipeline", "stages"):
        (user / folder).mkdir()
        (user / folder / "__init__.py").write_text("raise SystemExit('the user’s own')")
    (user / "cli.py").write_text("import sys; open('ran-the-users-own', 'w'); sys.exit(0)")
    (user / "script.py").write_text(SCRIPT.format(site=str(site)))
    done = run_python("script.py", cwd=user, env={"PYTHONPATH": str(site)})
    assert done.returncode == 0, done.stderr
    assert not (user / "ran-the-users-own").exists()
    assert "Traceback" not in done.stderr
    assert done.stderr.count("epoch 2/2") == 1  # one process prints for both
    records = read_records(user / "workspace/runs/first/metrics.jsonl")
    assert [record["epoch"] for record in records] == [0, 1]


def test_wheel_sdist_and_checkout_hold_the_same_modules(project: Path, wheel: Path, tmp_path: Path):
    sdist = build("sdist", project, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        assert all(member.isfile() or member.isdir() for member in archive), "a link in the sdist"
        assert not [name for name in archive.getnames() if "/tests" in name]
        archive.extractall(tmp_path / "unpacked", filter="data")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    assert not [name for name in ("stages", "pipeline", "cli.py") if (unpacked / name).exists()]
    again = build("wheel", unpacked, tmp_path / "again")
    assert contents(wheel) == contents(again)
    in_checkout = {
        f"{package}{path.relative_to(REPOSITORY)}"
        for package, folder in (("", "rela"), ("rela/", "stages"), ("rela/", "pipeline"))
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    found = set(contents(wheel))
    assert {name for name in found if name.endswith(".py")} == in_checkout | {"rela/cli.py"}
    assert {
        "rela/stages/report/templates/report.html", "rela/stages/demo.toml", "rela/py.typed",
        "rela/recipes/small.toml",
    } <= found  # fmt: skip


def contents(wheel: Path) -> dict[str, int]:
    """Files below `rela/` with their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {i.filename: i.CRC for i in archive.infolist() if i.filename.startswith("rela/")}
