"""The rooms of the house: which package may import which, and what must stay light.

One file steps out of its room: `rela/__init__.py` hands out the functions of `stages.api`, so that
`import rela` is all that a user needs. It imports them when they are asked for, and only there. Of
`pipeline`, `rela` uses what reads and digests plain files, so that there is one of it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
FORBIDDEN = {
    "pipeline": {"rela", "stages", "cli"},
    "rela": {"pipeline", "stages", "cli", "click"},
    "stages": {"cli", "click"},
}


SHARED = {"pipeline.regular_file", "pipeline.fingerprint"}
DOOR = REPOSITORY / "rela" / "__init__.py"


def imported(path: Path) -> set[str]:
    """Top-level names of every module that a file imports, wherever in the file; not those of `SHARED`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif (
            isinstance(node, ast.ImportFrom)
            and node.level == 0
            and node.module not in {*SHARED, None}
        ):
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_no_room_imports_what_it_must_not(room: str) -> None:
    files = sorted((REPOSITORY / room).rglob("*.py"))
    assert files
    for path in files:
        allowed = {"stages"} if path == DOOR else set()
        assert not imported(path) & (FORBIDDEN[room] - allowed), path


def test_pipeline_needs_the_standard_library_alone() -> None:
    for path in sorted((REPOSITORY / "pipeline").rglob("*.py")):
        assert imported(path) <= set(sys.stdlib_module_names) | {"pipeline"}, path


@pytest.mark.parametrize(
    "statement",
    [
        "import cli",
        "import stages.convert, stages.embed, stages.train, stages.status, stages.priors",
        "import stages.evaluate, stages.evaluation_report",
        "import rela; rela.train",
    ],
)
def test_the_command_line_and_cache_hits_do_not_import_torch(statement: str) -> None:
    heavy = "{'torch', 'torchvision', 'ffcv', 'numba', 'pytorch_lightning', 'lightly'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert result.stdout.strip() == "[]"


def test_importing_the_library_imports_nothing_else() -> None:
    code = "import sys, typing; before = set(sys.modules); import rela; print(set(sys.modules) - before)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert result.stdout.strip() == "{'rela'}"


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    for room in ("pipeline", "rela", "stages"):
        for path in (REPOSITORY / room).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
