"""Names that shells complete, through click's interface and in a real bash.

Data sets, priors and runs come from the workspace that `--workspace` or RELA_WORKSPACE names; damaged and
hostile manifests add nothing; torch is not imported; every shell gets a script.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete, get_completion_class
from command_line import REPOSITORY, Rela, run_python, run_rela

from rela.cli import main
from rela.models.preprocessing import preprocessing_for
from rela.priors import PriorIdentity

SHOWN = ["random:resnet18-seed0@96px", "resnet18", "resnet18+vit_b_16"]
BEST = ["best.pth#5024657f", "best.pth#96b2ff4a"]


def described(name: str) -> dict[str, Any]:
    """A prior as manifests hold it, or a combination; `best.pth 1` is another file than `best.pth 2`."""
    if "+" in name:
        return {"name": name, "components": [described(part) for part in name.split("+")]}
    name, _, number = name.partition(" ") if name.startswith("best") else (name, "", "")
    return PriorIdentity(name, "resnet18", 96, number, preprocessing_for(96), 512).as_dict()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace of names without content."""
    root = tmp_path / "workspace"
    for name, prior in {
        "datasets/letters": None, "datasets/digits": None, "runs/letters-byol-1": None,
        "representations/a": "resnet18", "representations/b": "resnet18+vit_b_16",
        "representations/c": "two words", "representations/d": "line\nbreak",
        "representations/h": "best.pth 1", "representations/i": "best.pth 2",
        "representations/j": "random:resnet18-seed0@96px",
    }.items():  # fmt: skip
        (root / name).mkdir(parents=True)
        made = None if prior is None else described(prior)
        content = {"content": {"prior": made}}
        (root / name / "manifest.json").write_text(json.dumps(content))
    for name, text in (("e", "[" * 100_000), ("f", "[]"), ("g", "\xff")):
        (root / "representations" / name).mkdir()
        (root / "representations" / name / "manifest.json").write_text(text, encoding="latin-1")
    for name in ("datasets/half", "representations/.parts-01", "runs/stopped", "runs/.removed-x"):
        (root / name).mkdir()
    (root / "runs/stopped/config.json").write_text("{}")
    (root / "runs/letters-byol-1/config.json").write_text("{}")
    return root


def completed(*words: str) -> list[str]:
    """What click offers for the last of `words`."""
    shell = ShellComplete(main, {}, "rela", "_RELA_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("st",), ["status"]),
        (("train", ""), ["digits", "letters"]),
        (("train", "l"), ["letters"]),
        (("embed", "d"), ["digits"]),
        (("priors", "rank", ""), ["digits", "letters"]),
        (("eval", ""), ["letters-byol-1"]),
        (("eval", "--dataset", "le"), ["letters"]),
        (
            ("train", "--prior", ""),
            [*BEST, "none", "random", *SHOWN],
        ),
        (("embed", "--prior", "best"), BEST),
        (("neighbors", "a.png", "--prior", "r"), SHOWN),
        (("embed", "--prior", "re"), ["resnet18", "resnet50"]),
        (("embed", "--prior", "le"), ["letters-byol-1"]),
        (("train", "--resume", "--name", ""), ["stopped"]),
        (("train", "--method", "sim"), ["simclr", "simsiam"]),
        (("cache", "verify", "l"), ["letters", "letters-byol-1"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)
def test_names_of_the_workspace_are_completed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: list[str]
):
    assert completed("--workspace", str(workspace), *words) == expected
    monkeypatch.setenv("RELA_WORKSPACE", str(workspace))
    assert completed(*words) == expected


def test_without_a_workspace_there_are_no_names(rela: Rela, tmp_path: Path):
    assert completed("train", "") == []
    assert completed("train", "--prior", "") == ["none", "random"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_the_script_that_click_makes_for_it(shell: str):
    made_for = get_completion_class(shell)
    assert made_for is not None
    script = run_rela("completion", shell).stdout
    if shell != "bash" or shutil.which("bash"):
        assert script.strip() == made_for(main, {}, "rela", "_RELA_COMPLETE").source().strip()
    assert "_RELA_COMPLETE" in script


@pytest.mark.parametrize(
    ("line", "expected"),
    [  # what readline appends to what it takes for the beginning of the word
        ("rela train --prior res", ["resnet18", "resnet18+vit_b_16"]),
        ("rela train --prior random:re", ["resnet18-seed0@96px"]),
        ("rela train --prior=random:re", ["resnet18-seed0@96px"]),
        ("rela train --prior random:resnet18-seed0@", ["96px"]),
        ("rela train --layer ", ["class", "patches", "pooled"]),
        ("rela embed --layer po", ["pooled"]),
        ("rela export --to n", ["npy"]),
    ],
)
def test_a_real_bash_completes(workspace: Path, tmp_path: Path, line: str, expected: list[str]):
    command = tmp_path / "bin" / "rela"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom rela.cli import main\nmain()\n")  # as pip does
    command.chmod(0o755)
    script = """
        source <(rela completion bash)
        complete -p rela
        COMP_WORDBREAKS=$' \t\n"><=;|&(:@' COMP_LINE="$1" COMP_POINT=${#1}
        _rela_completion rela
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    changed = {"PATH": path, "RELA_WORKSPACE": str(workspace), "PYTHONPATH": str(REPOSITORY)}
    bash = ["bash", "--norc", "-c", script, "bash", line]
    ended = subprocess.run(bash, env={**os.environ, **changed}, capture_output=True, text=True)
    assert ended.stderr == ""
    registered, *found = ended.stdout.splitlines()
    assert "-F _rela_completion" in registered
    assert found == expected


def test_completing_imports_nothing_heavy(workspace: Path):
    code = """
import os, sys
from rela.cli import main
from rela.models.preprocessing import preprocessing_for
from rela.priors import PriorIdentity

SHOWN = ["random:resnet18-seed0@96px", "resnet18", "resnet18+vit_b_16"]
BEST = ["best.pth#5024657f", "best.pth#96b2ff4a"]
try:
    main(prog_name="rela")
except SystemExit:
    pass
heavy = {"torch", "torchvision", "numpy", "h5py", "numba"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""
    asked = {"_RELA_COMPLETE": "bash_complete", "COMP_WORDS": "rela train l", "COMP_CWORD": "2"}
    ended = run_python("-c", code, env={**asked, "RELA_WORKSPACE": str(workspace)})
    assert (ended.stdout, ended.stderr) == ("plain,letters\n", "[]\n")
