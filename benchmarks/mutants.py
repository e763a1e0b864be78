"""`scripts/mutants`: change the code in small ways and count how many changes the tests notice.

cosmic-ray makes the changes. The tests run in a fork of this process, which has imported the large libraries:
that saves most of the time of each change.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODULES = [
    *map(str, sorted(Path("pipeline").glob("*.py"))),
    *(f"rela/training/{name}.py" for name in ("two_stage", "handover", "checkpoints")),
    "rela/data/loader.py",
]
# Tests of a module: those named after it, and these.
MORE_TESTS = {
    "rela/data/loader.py": ["crops"],
    "rela/training/two_stage.py": ["anchor", "online_classifier", "feature_sample"],
}
# Each operator into its opposite only: `a / "b"` into `a - "b"` is noticed by any test that runs the line,
# `x is None` into `x == None` by none. Without a decorator hardly any module loads.
TELLING = re.compile(
    r"core/(?!RemoveDecorator|Replace(Binary|Comparison)Operator_"
    r"(?!Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul|BitOr_BitAnd|BitAnd_BitOr"
    r"|LShift_RShift|RShift_LShift|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|In_NotIn|NotIn_In"
    r"|(Lt|LtE|Gt|GtE)_(Lt|LtE|Gt|GtE)$))"
)
LARGE = (
    "h5py",
    "lightly.loss",
    "lightly.utils.benchmarking",
    "numba",
    "pytorch_lightning",
    "torchvision",
)


@dataclass(frozen=True)
class Change:
    """One change of a module: where, by which operator of cosmic-ray, and the whole new source."""

    line: int
    operator: str
    source: str

    def diff(self, original: str) -> str:
        """The lines that differ."""
        found = difflib.unified_diff(
            original.splitlines(), self.source.splitlines(), lineterm="", n=0
        )
        return "\n".join(line for line in found if not line.startswith(("---", "+++", "@@")))


def changes(source: str) -> list[Change]:
    """Every change that says something about the tests, in the order of the lines."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    types = [
        part
        for node in ast.walk(ast.parse(source))
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
    ]
    spans = [((t.lineno, t.col_offset), (t.end_lineno, t.end_col_offset)) for t in types]
    found = []
    for name in filter(TELLING.match, operator_names()):
        if get_operator(name).arguments():  # takes settings; none is meant for all code
            continue
        operator = get_operator(name)()
        starts = [
            s for node in ast_nodes(get_ast(source)) for s, _ in operator.mutation_positions(node)
        ]
        for occurrence, start in enumerate(starts):
            if not any(first <= start < end for first, end in spans):
                changed = mutate_code(source, operator, occurrence)
                found.append(Change(start[0], name.removeprefix("core/"), changed))
    return sorted(found, key=lambda change: change.line)


def tests_of(module: str) -> list[str]:
    """Files of tests."""
    names = [Path(module).stem, *MORE_TESTS.get(module, ())]
    folder = Path("tests", module).parent
    return [str(path) for name in names for path in sorted(folder.glob(f"test_{name}*.py"))]


def passes(tests: list[str], limit_seconds: float = 3600.0) -> bool:
    """Whether the tests pass in time; what they print is in `output.txt`."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            # so that processes of the tests do not import this module as theirs
            vars(sys.modules["__main__"]).update(__spec__=None, __file__=None)
            import pytest

            imported = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that a library imports
            options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", imported]
            status = int(pytest.main([*options, *tests]))
        finally:
            os._exit(status)
    end = time.monotonic() + limit_seconds
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):  # also what the tests have started
        os.killpg(process, signal.SIGKILL)
    if ended[0] == 0:
        os.waitpid(process, 0)
    return ended[0] != 0 and ended[1] == 0


def try_module(module: str, line: int | None, percent: float, tests: list[str]) -> tuple[int, int]:
    """How many changes were noticed, and how many were tried."""
    path = Path(module)
    original = path.read_text(encoding="utf-8")
    telling = [c for c in changes(original) if line in (None, c.line)]
    chosen = random.Random(module).sample(telling, round(len(telling) * percent / 100))
    if chosen and not tests:
        sys.exit(f"{module}: no tests are named after it")
    start = time.monotonic()
    if chosen and not passes(tests):  # else every change would count as noticed
        sys.exit(f"{Path('output.txt').read_text()}\n{module}: its tests fail without any change")
    limit_seconds = 20 + 5 * (time.monotonic() - start)
    noticed = 0
    for change in sorted(chosen, key=lambda change: change.line):
        path.write_text(change.source, encoding="utf-8")
        if passes(tests, limit_seconds):
            print(f"{module}:{change.line} {change.operator}\n{change.diff(original)}", flush=True)
        else:
            noticed += 1
    path.write_text(original, encoding="utf-8")
    print(f"{module}: {noticed} of {len(chosen)} noticed; {len(telling)} possible", flush=True)
    return noticed, len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/mutants")
    parser.add_argument("modules", nargs="*", default=MODULES, help="FILE or FILE:LINE")
    parser.add_argument(
        "--sample", type=float, default=100.0, help="percent of the changes, at random"
    )
    parser.add_argument("--tests", nargs="+", help="files or folders of tests, for all modules")
    arguments = parser.parse_args()
    for name in LARGE:
        importlib.import_module(name)
    files = subprocess.check_output(
        ["git", "ls-files", "-coz", "--exclude-standard"], text=True
    ).split("\0")
    with tempfile.TemporaryDirectory() as copy:
        for name in filter(os.path.lexists, files):
            Path(copy, name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, Path(copy, name), follow_symlinks=False)
        os.chdir(copy)
        sys.path.insert(0, copy)
        sys.dont_write_bytecode = True  # bytecode of a change could pass for that of the next
        os.environ.update(PYTHONPATH=copy, PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
        totals = [0, 0]
        for argument in arguments.modules:
            module, _, line = argument.partition(":")
            tests = arguments.tests or tests_of(module)
            found = try_module(module, int(line) if line else None, arguments.sample, tests)
            totals = [a + b for a, b in zip(totals, found, strict=True)]
    print(f"all: {totals[0]} of {totals[1]} noticed, {100 * totals[0] / max(1, totals[1]):.1f} %")


if __name__ == "__main__":
    main()
