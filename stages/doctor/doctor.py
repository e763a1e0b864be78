"""`rela doctor`: what is installed, whether it runs, what the machine offers, and how to fix the rest.

Nothing heavy is imported into this process, so that it works with any package missing or broken.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from signal import Signals
from typing import Any

import rela
from rela.data.kernel_cache import kernel_cache, kernel_cache_places
from rela.pipeline.cores import num_cores, quota_cores
from rela.pipeline.locks import NO_LOCKS
from rela.result import Result, Table
from rela.stages.display import human_bytes
from rela.stages.doctor.machine import (
    file_system,
    file_system_locks,
    memory_bytes,
    writable_parent,
)

OK, WARNING, MISSING, ABSENT = "ok", "warning", "missing", "absent"
_PACKAGE = Path(rela.__file__).parent
_DEVELOPMENT = ("dev", "docs", "test")  # extras for work on rela itself
_PROBE_SECONDS = 180
_LEAST_MEMORY_BYTES, _LEAST_SHARED_BYTES, _LEAST_DISK_BYTES = 4 * 10**9, 256 * 10**6, 5 * 10**9
_LEAST_OPEN_FILES = 1024
_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "9p")
_SYSTEM_PACKAGES = "libopencv-dev libturbojpeg0-dev pkg-config g++"


@dataclass(frozen=True)
class Check:
    """One line of the result: `state` is ok, warning, missing (rela cannot work) or absent (optional)."""

    what: str
    state: str
    found: str
    remedy: str = ""


@dataclass(frozen=True, repr=False)
class Health(Result):
    """All checks, and whether rela can be used."""

    checks: list[Check]
    usable: bool

    def shown(self) -> dict[str, Any]:
        """Whether rela can be used here, and what to fix."""
        fix = ", ".join(check.what for check in self.checks if check.state in (MISSING, WARNING))
        return {"usable": self.usable, "checks": len(self.checks), "to fix": fix or None}

    def tables(self) -> dict[str, Table]:
        """A row for each check."""
        rows = [[check.state, check.what, check.found, check.remedy] for check in self.checks]
        return {"checks": (("state", "what", "found", "remedy"), rows)}


def examine(workspace: Path) -> Health:
    """Run every check. Missing parts become findings, not exceptions; only temporary files are written."""
    started: list[subprocess.Popen[str]] = []
    names = ("torch", "torchvision", "training", "decoder")
    with ThreadPoolExecutor() as pool:
        try:
            probes = [pool.submit(_probe, name, started) for name in names]
            checks = [_python(), *_guarded("packages", _packages), *_guarded("FFCV", _ffcv)]
            for probe in probes:
                checks += probe.result()
        except BaseException:  # a signal: do not wait for them
            for process in started:
                process.kill()
            raise
    checks = _with_driver(checks)
    for what, look in (
        ("kernel cache", _kernel_cache), ("CPU cores", _cores), ("memory", _memory),
        ("shared memory", _shared_memory), ("open files", _open_files),
        ("workspace", lambda: _workspace(workspace)),
        ("extras", _extras),
    ):  # fmt: skip
        checks += _guarded(what, look)
    return Health(checks, not any(check.state == MISSING for check in checks))


def format_health(health: Health) -> str:
    """One line per check, with the remedy below it."""
    width = max(len(check.what) for check in health.checks)
    lines = []
    for check in health.checks:
        lines.append(f"{check.state:8} {check.what:{width}}  {check.found}")
        if check.remedy:
            lines.append(f"{'':8} {'':{width}}  → {check.remedy}")
    count = sum(check.state == MISSING for check in health.checks)
    end = "rela can be used here" if health.usable else f"rela cannot be used here: {count} missing"
    return "\n".join([*lines, "", end])


def _guarded(what: str, look: Callable[[], list[Check]]) -> list[Check]:
    """The checks of `look`; an exception becomes a warning, so that the other checks still run."""
    try:
        return look()
    except Exception as error:
        return [Check(what, WARNING, f"check failed: {type(error).__name__}: {error}")]


def _probe(name: str, started: list["subprocess.Popen[str]"]) -> list[Check]:
    """The checks of one probe, run in a process of its own, which is added to `started`."""
    paths = [str(_PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(
        [sys.executable, "-m", "rela.stages.doctor.trials", name], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment,
    )  # fmt: skip
    started.append(process)
    try:
        output, errors = process.communicate(timeout=_PROBE_SECONDS)
        if process.returncode < 0:
            return [Check(name, MISSING, f"crashed with {Signals(-process.returncode).name}")]
        return [Check(*found) for found in json.loads(output.splitlines()[-1])]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return [Check(name, MISSING, f"did not answer within {_PROBE_SECONDS} s")]
    except (ValueError, IndexError, TypeError):
        line = (errors.strip().splitlines() or ["no message"])[-1]
        return [Check(name, MISSING, f"ended with status {process.returncode}: {line}")]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    state = OK if sys.version_info >= (3, 11) else MISSING
    remedy = "" if state == OK else "install Python 3.11 or newer"
    return Check("Python", state, f"{version}, {sys.executable}", remedy)


def _requirements() -> dict[str, list[tuple[str, str]]]:
    """(package, version specifier) by extra; required packages under an empty name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in metadata.requires("rela") or []:
        what, _, marker = line.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", what)
        extra = re.search(r"extra == [\"']([^\"']+)", marker)
        if name is not None and name[0] != "rela":
            specifier = re.sub(r"\[.*?\]", "", what[name.end() :]).strip()
            found.setdefault(extra[1] if extra else "", []).append((name[0], specifier))
    return found


def _packages() -> list[Check]:
    """Every package that pyproject.toml requires, with its installed version."""
    try:
        needed, own = _requirements()[""], metadata.version("rela")
    except (metadata.PackageNotFoundError, KeyError):
        return [Check("rela", WARNING, "runs from source, not installed", "pip install -e .")]
    checks, sound = [], []
    for name, specifier in needed:
        version = _version(name)
        if version is None:
            checks.append(Check(name, MISSING, "not installed", f"pip install '{name}{specifier}'"))
        elif not _satisfies(version, specifier):
            words = f"{version}, expected {specifier}"
            checks.append(Check(name, MISSING, words, f"pip install '{name}{specifier}'"))
        else:
            sound.append(f"{name} {version}")
    return [Check("rela", OK, own), Check("packages", OK, ", ".join(sound)), *checks]


def _extras() -> list[Check]:
    """Which of rela's extras are installed."""
    checks = []
    for extra, needed in sorted(_requirements().items()):
        if extra and extra not in _DEVELOPMENT:
            lacking = [name for name, _ in needed if _version(name) is None]
            if lacking:
                words, remedy = f"without {', '.join(lacking)}", f"pip install 'rela[{extra}]'"
                checks.append(Check(f"extra {extra}", ABSENT, words, remedy))
            else:
                words = ", ".join(f"{name} {_version(name)}" for name, _ in needed)
                checks.append(Check(f"extra {extra}", OK, words))
    return checks


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _satisfies(version: str, specifier: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _ffcv() -> list[Check]:
    """FFCV's compiled library and the libraries it is linked with."""
    try:
        package = util.find_spec("ffcv")
    except ImportError:
        package = None
    remedy = f"apt-get install -y {_SYSTEM_PACKAGES}, then pip install --no-cache-dir ffcv==1.0.2"
    found = []
    for folder in [] if package is None else package.submodule_search_locations or []:
        found += [*Path(folder).glob("_libffcv*.so"), *Path(folder).parent.glob("_libffcv*.so")]
    if not found:
        return [Check("FFCV", MISSING, "compiled library not found", remedy)]
    if shutil.which("ldd") is None:
        return [Check("FFCV", OK, f"{found[0]} (linked libraries unknown: no ldd)")]
    linked = subprocess.run(["ldd", found[0]], capture_output=True, text=True).stdout
    lacking = re.findall(r"(\S+) => not found", linked)
    if lacking:
        return [Check("FFCV", MISSING, f"{found[0]} needs {', '.join(lacking)}", remedy)]
    libraries = re.findall(r"(?:libturbojpeg|libopencv_core)\S*(?= =>)", linked)
    if not any(name.startswith("libturbojpeg") for name in libraries):
        return [Check("FFCV", WARNING, f"{found[0]} is not linked with libturbojpeg", remedy)]
    return [Check("FFCV", OK, f"{found[0].name}, linked with {', '.join(libraries)}")]


def _with_driver(checks: list[Check]) -> list[Check]:
    """Add the driver that nvidia-smi reports; warn if torch does not see its GPU."""
    tool = shutil.which("nvidia-smi")
    lines: list[str] = []
    if tool is not None:
        query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            asked = subprocess.run(query, capture_output=True, text=True, timeout=30)
            lines = asked.stdout.strip().splitlines() if asked.returncode == 0 else []
        except (OSError, subprocess.TimeoutExpired):
            lines = []
    if not lines:
        return checks
    driver = lines[0].rpartition(", ")[2]
    remedy = "check CUDA_VISIBLE_DEVICES; pip install a torch for this driver's CUDA (pytorch.org)"
    found = []
    for check in checks:
        if check.what == "GPU" and check.state == ABSENT:
            words = f"{lines[0]}: torch cannot use it ({check.found})"
            check = Check("GPU", WARNING, words, remedy)
        elif check.what.startswith("GPU") and check.state == OK:
            check = Check(check.what, OK, f"{check.found}, driver {driver}")
        found.append(check)
    return found


def _kernel_cache() -> list[Check]:
    """Whether compiled kernels can be kept where nobody else can write."""
    found, places = kernel_cache(), kernel_cache_places()
    if found in places:
        return [Check("kernel cache", OK, str(found))]
    words = f"none of {', '.join(map(str, places))} is a folder of yours that only you can write to"
    remedy = (
        "export NUMBA_CACHE_DIR=~/rela-kernels  # else every command compiles its kernels again"
    )
    return [Check("kernel cache", WARNING, words, remedy)]


def _cores() -> list[Check]:
    cores, quota = num_cores(), quota_cores()
    granted = "" if quota is None else f" ({quota:g} granted by the control group)"
    if cores == 1:
        words, remedy = f"1{granted}: loading may be slow", "request more (SLURM: --cpus-per-task)"
        return [Check("CPU cores", WARNING, words, remedy)]
    return [Check("CPU cores", OK, f"{cores}{granted}")]


def _memory() -> list[Check]:
    total, available = memory_bytes()
    words = f"{human_bytes(available)} free of {human_bytes(total)}"
    if available < _LEAST_MEMORY_BYTES:
        remedy = "request more (SLURM: --mem), or lower --batch-size"
        return [Check("memory", WARNING, words, remedy)]
    return [Check("memory", OK, words)]


def _shared_memory() -> list[Check]:
    total = shutil.disk_usage("/dev/shm").total
    if total < _LEAST_SHARED_BYTES:
        remedy = "docker run --shm-size=1g (several GPUs communicate through it)"
        return [Check("shared memory", WARNING, f"/dev/shm has {human_bytes(total)}", remedy)]
    return [Check("shared memory", OK, f"/dev/shm has {human_bytes(total)}")]


def _open_files() -> list[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _LEAST_OPEN_FILES:
        return [Check("open files", WARNING, f"at most {soft}", f"ulimit -n {min(hard, 4096)}")]
    return [Check("open files", OK, f"at most {soft}")]


def _workspace(root: Path) -> list[Check]:
    place = writable_parent(root)
    where = str(root) if place == root else f"{root} (does not exist yet)"
    try:
        error = file_system_locks(place)
    except OSError as refused:
        words = f"{where}: not writable: {refused.strerror}"
        return [Check("workspace", MISSING, words, "choose another --workspace")]
    checks = [Check("workspace", OK, f"{where}: writable")]
    free = shutil.disk_usage(place).free
    low = free < _LEAST_DISK_BYTES
    remedy = "free some space (rela cache gc), or choose another --workspace" if low else ""
    checks.append(Check("disk", WARNING if low else OK, f"{human_bytes(free)} free", remedy))
    kind = file_system(place)
    if error is not None and error not in NO_LOCKS:
        words = f"{kind}: locking fails ({os.strerror(error)})"
        checks.append(Check("file system", MISSING, words, "choose a --workspace on another one"))
    elif error is not None:
        words = f"{kind} without locks: leases are used; a killed job holds its lease for a minute"
        checks.append(Check("file system", WARNING, words, "mount it with locks"))
    elif kind.startswith(_NETWORK):
        words = f"{kind}: locks work on this machine; they must work on all that share it"
        remedy = "make sure it is not mounted with nolock or local_lock; see docs/scaling.md"
        checks.append(Check("file system", WARNING, words, remedy))
    else:
        checks.append(Check("file system", OK, f"{kind}, with locks"))
    return checks
