"""Who may import whom: ordered lists of packages, lazy imports included, and what must stay light.

One file steps out of its place: `rela/__init__.py` hands out the functions of `rela.stages.api`, and
imports them when they are first asked for, so that `import rela` is all that a user needs.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from command_line import REPOSITORY, run_python

FOLDERS = {"rela": "rela", "rela.stages": "stages", "rela.pipeline": "pipeline"}

# each may import those before it, and what lies within itself
STACK = ("pipeline", "rela", "stages", "cli")
LIBRARY = (
    "errors", "options", "result", "distributed", "sources", "data", "models", "priors", "representations",
    "methods", "evaluation", "training",
)  # fmt: skip
NOUNS = (
    "presets",
    "settings",
    "display",
    "workspace",
    "snippets",
    "requests",
    "left_out",
    "output",
    "conversion",
    "priors",
)
JOBS = (
    "remove", "same_images", "shards", "convert", "dataset_of", "embed", "train",
    "evaluate", "export", "backbone", "neighbors", "report", "recipe", "demo", "doctor",
)  # fmt: skip
STAGES = (*NOUNS, *JOBS, "api", "commandline")
HEAVY = {"torch", "torchvision", "ffcv", "numba", "pytorch_lightning", "lightly"}


def modules() -> dict[str, Path]:
    """Every module that is installed, by its full name."""
    found = {"rela.cli": REPOSITORY / "cli.py"}
    for package, folder in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            inside = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            if package != "rela" or inside[0] not in ("stages", "pipeline"):  # which are links
                name = ".".join([package, *inside]).removesuffix(".__init__")
                found.setdefault(name, path)
    return found


MODULES = modules()


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names.update(full if full in MODULES else str(node.module) for full in whole)
    return names


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}
ARROWS = [
    (name, other)
    for name, others in IMPORTS.items()
    for other in others
    if other in MODULES and (name, other) != ("rela", "rela.stages.api")
]


def room(name: str) -> str:
    """`pipeline`, `stages`, `cli`, or `rela` for all that is the library."""
    part = f"{name}.".split(".")[1]
    return part if part in STACK else "rela"


def place(name: str) -> tuple[int, int]:
    """Where a module stands in the order of everything."""
    parts = [*name.split("."), "", ""]
    order = {"rela": LIBRARY, "stages": STAGES}.get(room(name), ())
    package = parts[2] if room(name) == "stages" else parts[1]
    return STACK.index(room(name)), order.index(package) if package in order else -1


def package(name: str) -> str:
    """Of `rela.data.beton.reader`: `rela.data`; of `rela.stages.train.fit`: `rela.stages.train`."""
    return ".".join(name.split(".")[: 3 if room(name) == "stages" else 2])


def test_every_module_has_its_place():
    faces = {"rela", "rela.__main__", "rela.stages", "rela.pipeline", "rela.cli"}
    for name in MODULES:
        assert name in faces or place(name)[1] >= 0 or room(name) == "pipeline", name


def test_no_module_imports_what_stands_above_it():
    assert len(ARROWS) > 300
    upwards = [(a, b) for a, b in ARROWS if place(a) < place(b) and a != "rela.__main__"]
    assert upwards == []


def test_no_circle_between_files_nor_between_packages():
    files: dict[str, set[str]] = {}
    packages: dict[str, set[str]] = {}
    for a, b in ARROWS:
        inside_of_own = MODULES[b].name == "__init__.py" and a.startswith(f"{b}.")
        if not inside_of_own:
            files.setdefault(a, set()).add(b)
        if package(a) != package(b):
            packages.setdefault(package(a), set()).add(package(b))
    assert tuple(TopologicalSorter(files).static_order())  # raises CycleError, naming the circle
    assert tuple(TopologicalSorter(packages).static_order())


def test_pipeline_needs_only_the_standard_library():
    for name, imported in IMPORTS.items():
        if room(name) == "pipeline":
            outside = {other.split(".")[0] for other in imported} - set(sys.stdlib_module_names)
            assert outside <= {"rela"}, name


def test_only_the_command_line_knows_click():
    users = [n for n, imported in IMPORTS.items() if "click" in {i.split(".")[0] for i in imported}]
    assert users
    assert all(name == "rela.cli" or name.startswith("rela.stages.commandline") for name in users)


def test_every_import_starts_with_rela():
    for name, imported in IMPORTS.items():
        assert not {other.split(".")[0] for other in imported} & {"pipeline", "stages", "cli"}, name


@pytest.mark.parametrize(
    "statement",
    [
        "import rela.cli",
        "from rela.stages import convert; from rela.stages.embed import embed",
        "from rela.stages.train import train; from rela.stages.workspace import status",
        "from rela.stages.priors import rank",
        "from rela.stages.evaluate import evaluate, table",
        "import rela; rela.train",
    ],
)
def test_the_command_line_and_cache_hits_do_not_import_torch(statement: str):
    assert after(statement, f"sorted({HEAVY} & set(sys.modules))") == "[]"


def test_commands_train_without_what_only_other_uses_need():
    statement = (
        "from rela.stages.commandline.process import LATE, prepare_process as p; p();"
        "import torch, rela.training.run, rela.data.kernels.samples;"
        "from rela.models.backbones import build_backbone as b, feature_dim; net = b('resnet18', seed=0);"
        "feature_dim(net, 32); optimizer = torch.optim.AdamW(net.parameters(), fused=True);"
        "net(torch.zeros(2, 3, 32, 32)).sum().backward(); optimizer.step(); optimizer.zero_grad();"
        "optimizer.state_dict()"
    )
    known = "[n for n, module in sys.modules.items() if n in LATE and type(module).__name__ == 'module']"
    heavy = {"sympy", "triton", "matplotlib.pyplot", "torch._inductor"}
    assert after(statement, f"{known} + sorted({heavy} & set(sys.modules))") == "[]"


def test_help_is_shown_without_requests_and_cache_hits_without_numpy():
    for heavy in ("msgspec", "rela.stages.requests"):
        assert after("import rela.cli", f"{heavy!r} in sys.modules") == "False"
    for hit in ("rela.stages.workspace.status", "rela.stages.embed.combine"):
        assert after(f"import {hit}", "'numpy' in sys.modules") == "False"


def test_importing_the_library_imports_nothing_else():
    statement = "import typing; before = set(sys.modules); import rela"
    assert after(statement, "set(sys.modules) - before") == "{'rela'}"


def after(statement: str, expression: str) -> str:
    """What `expression` prints in a fresh interpreter."""
    code = f"import sys; {statement}; print({expression})"
    return run_python("-c", code, check=True).stdout.strip()


PLUG_INS = ("rela.methods", "rela.priors", "rela.sources")


def test_files_and_folders_have_bounded_sizes():
    for name, path in MODULES.items():
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        is_face = path.name in ("__init__.py", "__main__.py")
        assert num_lines <= 400, name
        assert num_lines >= 30 or is_face or name.startswith(PLUG_INS), name
    folders = {path.parent for path in MODULES.values()} - {REPOSITORY}
    for folder in folders:
        names = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(names) <= 15, folder


def test_every_package_docstring_names_in_out_and_begin():
    for path in MODULES.values():
        if path.name == "__init__.py" and path.parent != REPOSITORY / "rela":
            words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            assert all(part in words for part in ("In: ", "Out: ", "Begin with `")), path
