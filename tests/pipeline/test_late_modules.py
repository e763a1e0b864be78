"""Stand-ins for modules, against the modules themselves."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rela.pipeline.late_modules import import_late

FILES = {
    "late_outer/__init__.py": (
        "__version__ = '2.0'\nvalue = 7\nclass Widget:\n    size = 3\nfrom late_outer import inner\n"
    ),
    "late_outer/inner.py": "def double(x):\n    return 2 * x\n",
    "late_outer/aside.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with stand-ins for itself and for one of its two modules."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before, finders = set(sys.modules), list(sys.meta_path)
    import_late(
        {"late_outer": {"Widget": None, "twice": lambda x: x}, "late_outer.inner": {"double": None}}
    )
    yield "late_outer"
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        del sys.modules[name]


def is_imported(name: str) -> bool:
    return type(sys.modules[name]) is ModuleType


def test_a_name_is_imported_when_it_is_used(package: str):
    from late_outer import Widget, twice
    from late_outer.inner import double

    assert twice(4) == 4
    assert not isinstance(4, Widget)
    assert "late_outer" in sys.modules
    assert not is_imported(package)
    assert double(4) == 8
    assert is_imported(package)
    real = importlib.import_module(package)
    assert isinstance(real.Widget(), Widget)
    assert not isinstance(4, Widget)
    assert Widget.size == 3
    assert type(Widget()) is real.Widget
    assert sys.modules["late_outer.inner"].double is real.inner.double


def subclass_size(package: Any) -> int:
    class Sub(package.Widget):
        pass

    return Sub.size


USES: dict[str, tuple[Any, Any]] = {
    "an attribute": (lambda package: package.value, 7),
    "the version": (lambda package: package.__version__, "2.0"),
    "an absent attribute": (lambda package: hasattr(package, "absent"), False),
    "a subclass": (subclass_size, 3),
}


@pytest.mark.parametrize("use", USES)
def test_any_other_use_imports_the_module(package: str, use: str):
    compute, expected = USES[use]
    assert compute(importlib.import_module(package)) == expected
    assert is_imported(package)


@pytest.mark.parametrize("name", ["late_outer.inner", "late_outer.aside"])
def test_a_module_inside_is_loaded_once(package: str, name: str):
    sys.modules.pop("late_outer.inner")
    found = importlib.import_module(name)
    assert is_imported(package)
    assert found is sys.modules[name] is getattr(sys.modules[package], name.partition(".")[2])
    assert found.__spec__ is not None
    assert found.__spec__.origin is not None


def test_what_is_imported_already_stays(package: str):
    real = importlib.import_module(package)
    assert real.value == 7
    real = sys.modules[package]
    import_late({package: {"value": None}})
    assert sys.modules[package] is real
