"""`rela doctor` answers whatever is missing, and says how to fix it.

- here everything is there, and it says so with status 0, as JSON too;
- modules that are hidden or fail when imported, a probe that crashes or hangs:
  status 1, a line for each, the rest is still checked;
- cores, memory, locks and file systems against what the system's own tools say.
"""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest
from command_line import REPOSITORY, read_json, run_python

from rela.cli import doctor
from rela.pipeline.cores import num_cores
from rela.stages.doctor import doctor as stage
from rela.stages.doctor import machine
from rela.stages.doctor.doctor import ABSENT, MISSING, OK, WARNING, Check, Health, format_health

# `import torchvision` with another torch than it was built for; no FFCV; no packages of the extras
BREAK = """
import importlib.abc, os, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in os.environ["HIDDEN"].split(","):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        if top in os.environ["BROKEN"].split(","):
            raise RuntimeError("operator torchvision::nms does not exist\\nsecond line")
        if top in os.environ["CRASHING"].split(","):
            os.abort()
sys.meta_path.insert(0, Hidden())
"""


def run_doctor(folder: Path, hidden: str = ""):
    """`rela doctor --json` where these modules are hidden: (status, checks by name)."""
    (folder / "sitecustomize.py").write_text(BREAK)
    path = f"{folder}{os.pathsep}{REPOSITORY}"
    broken = {"PYTHONPATH": path, "HIDDEN": hidden, "BROKEN": "", "CRASHING": ""}
    words = ("--workspace", folder / "new", "doctor", "--json")
    ended = run_python("-m", "rela", *words, cwd=folder, env=broken)
    assert ended.stderr == ""
    return ended.returncode, {check["what"]: check for check in read_json(ended)["checks"]}


def test_a_sound_installation_passes(tmp_path: Path):
    status, checks = run_doctor(tmp_path)
    assert status == 0
    assert all(check["state"] != MISSING for check in checks.values())
    assert checks["torch"]["state"] == checks["torchvision"]["state"] == OK
    assert checks["decoder"]["found"].startswith("a JPEG round trip")
    assert "libturbojpeg" in checks["FFCV"]["found"]
    assert not (tmp_path / "new").exists()  # it looks and leaves nothing


def test_missing_modules_are_named_and_the_rest_is_checked(tmp_path: Path):
    hidden = "ffcv,torch,torchvision,numpy,numba,lightly,pytorch_lightning,PIL,h5py,cv2"
    status, checks = run_doctor(tmp_path, hidden)
    assert status == 1
    ill = {what for what, check in checks.items() if check["state"] == MISSING}
    assert ill == {"FFCV", "torch", "torchvision", "training", "decoder"}
    assert checks["workspace"]["state"] == checks["Python"]["state"] == OK
    assert "libturbojpeg0-dev" in checks["FFCV"]["remedy"]


@pytest.mark.parametrize(
    ("name", "how", "module", "found"),
    [
        (
            "torchvision",
            "BROKEN",
            "torchvision",
            "RuntimeError: operator torchvision::nms does not",
        ),
        ("training", "CRASHING", "lightly", "crashed with SIGABRT"),
    ],
)
def test_modules_that_fail_to_import_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str, module: str, found: str
):
    (tmp_path / "sitecustomize.py").write_text(BREAK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for variable in ("HIDDEN", "BROKEN", "CRASHING"):
        monkeypatch.setenv(variable, module if variable == how else "")
    (check,) = stage._probe(name, [])
    assert (check.what, check.state) == (name, MISSING) and check.found.startswith(found)
    if how == "BROKEN":
        assert check.remedy.startswith("pip install --upgrade torch torchvision")
        assert "\n" not in check.found


def test_a_probe_that_hangs_or_fails_is_reported(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_PROBE_SECONDS", 0.01)
        started: list[subprocess.Popen[str]] = []
        (check,) = stage._probe("torch", started)
    assert (check.state, check.found) == (MISSING, "did not answer within 0.01 s")
    assert started[0].returncode == -signal.SIGKILL
    (check,) = stage._probe("no such probe", [])
    assert check.state == MISSING and "KeyError" in check.found


def test_packages_are_compared_with_what_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked = ["torch>=99", "h5py", "nothing-like-it<3"]
    asked += ['timm>=1; extra == "timm"', 'gone[x]; extra == "z"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: asked)
    checks = {check.what: check for check in stage._packages()}
    assert checks["torch"].found.endswith("expected >=99") and checks["torch"].state == MISSING
    assert checks["nothing-like-it"].remedy == "pip install 'nothing-like-it<3'"
    assert checks["packages"].found.startswith("h5py ")
    extras = {check.what: check for check in stage._extras()}
    assert extras["extra timm"].state == OK
    assert extras["extra z"] == Check("extra z", ABSENT, "without gone", "pip install 'rela[z]'")


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    unused, used = Check("GPU", ABSENT, "none"), Check("GPU 0", OK, "H200")
    first, second = stage._with_driver([unused, used])
    unusable = "NVIDIA H200, 570.1: torch cannot use it (none)"
    assert (first.state, first.found) == (WARNING, unusable)
    assert second.found == "H200, driver 570.1"


def test_a_workspace_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (check,) = stage._workspace(Path("/proc/nowhere"))
    assert check.state == MISSING
    assert "/proc/nowhere (does not exist yet): not writable" in check.found
    (tmp_path / "file").touch()
    (check,) = stage._workspace(tmp_path / "file" / "workspace")
    assert check.state == MISSING

    for number, state, words in (
        (errno.ENOLCK, WARNING, "without locks"),
        (errno.EIO, MISSING, "Input/output error"),
    ):
        failing = Mock(side_effect=OSError(number, os.strerror(number)))
        monkeypatch.setattr(fcntl, "flock", failing)
        last = stage._workspace(tmp_path)[-1]
        assert last.state == state and words in last.found


def test_a_network_file_system_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "file_system", lambda path: "nfs4")
    last = stage._workspace(tmp_path)[-1]
    assert last.state == WARNING and "nolock" in last.remedy


def test_the_file_system_is_the_one_that_df_names(tmp_path: Path):
    for place in (tmp_path, Path("/dev/shm"), Path("/proc")):
        listed = subprocess.run(["df", "--output=fstype", place], capture_output=True, text=True)
        assert machine.file_system(place) == listed.stdout.split()[-1]


def test_cores_and_memory_are_those_of_the_system():
    # nproc counts the cores that OMP_NUM_THREADS leaves, which Lightning sets for its processes
    nproc = ["env", "--unset=OMP_NUM_THREADS", "--unset=OMP_THREAD_LIMIT", "nproc"]
    assert num_cores() == int(subprocess.check_output(nproc))
    total, free = machine.memory_bytes()
    assert 0 <= free <= total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_checks_that_fail_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    failing = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(shutil, "disk_usage", failing)
    monkeypatch.setattr(stage, "_probe", lambda name, started: [Check(name, OK, "")])
    health = stage.examine(tmp_path)
    told = {check.what: check for check in health.checks}
    shared = told["shared memory"]
    assert shared.state == WARNING and "check failed" in shared.found
    assert told["CPU cores"].found.startswith(str(num_cores()))


def test_every_check_is_a_line_with_its_fix():
    torch = Check("torch", MISSING, "not installed", "pip install torch")
    health = Health([torch, Check("GPU", ABSENT, "none")], False)
    assert format_health(health).splitlines() == [
        "missing  torch  not installed",
        "                → pip install torch",
        "absent   GPU    none",
        "",
        "rela cannot be used here: 1 missing",
    ]
    assert doctor.help is not None and "status 1" in doctor.help


def test_a_kernel_cache_that_others_can_write_to_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (check,) = stage._kernel_cache()
    assert check.state == OK and Path(check.found).parent == tmp_path
    monkeypatch.setattr(stage, "kernel_cache", lambda: tmp_path / "new")
    (check,) = stage._kernel_cache()
    assert check.state == WARNING and check.remedy.startswith("export NUMBA_CACHE_DIR=")


def test_probes_import_rela_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths: list[str] = []

    def popen(*_: object, env: dict[str, str], **__: object) -> Mock:
        paths.extend(env["PYTHONPATH"].split(os.pathsep))
        return Mock(returncode=0, communicate=lambda timeout: ("[]", ""))

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert stage._probe("torch", []) == []
    assert (Path(paths[0]) / "rela" / "__init__.py").is_file()
