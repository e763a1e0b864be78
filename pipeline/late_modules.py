"""Modules that are imported when one of their names is used, not when they are imported by name."""

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_ASKED_BY_USERS = ("__all__", "__pyx_capi__", "__version__")


def import_late(modules: Mapping[str, Mapping[str, Any]]) -> None:
    """From now on `import` gives stand-ins for `modules`, in this process; those imported already stay.

    For each, a name → what a stand-in gives for it; None: a `LateName`. Any other name imports the module.
    """
    for name, names in modules.items():
        sys.modules.setdefault(name, _LateModule(name, names))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]


class LateName:
    """A class or function. Using it imports its module; `isinstance` does not: there are no instances yet."""

    __slots__ = ("_module", "_name")

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _found(self) -> Any:
        return getattr(_import(self._module), self._name)

    def __instancecheck__(self, value: object) -> bool:
        known = sys.modules.get(self._module)
        return not isinstance(known, _LateModule) and isinstance(value, self._found())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._found(),)  # of a class that inherits from it

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it."""
        return self._found()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `typing` asks for some
            raise AttributeError(name)
        return getattr(self._found(), name)


class _LateModule(ModuleType):
    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__path__: list[str] = []  # `_Finder` finds what lies in it
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith("__") and name not in _ASKED_BY_USERS
        ):  # by the import system, by introspection
            raise AttributeError(name)
        if name in self._names:
            return self._names[name] or LateName(self.__name__, name)
        return getattr(_import(self.__name__), name)


def _import(name: str) -> ModuleType:
    """The module itself, in place of its stand-in and of those beside it."""
    package = name.partition(".")[0]
    for known, module in list(sys.modules.items()):
        if isinstance(module, _LateModule) and known.partition(".")[0] == package:
            del sys.modules[known]
    return import_module(name)


class _Finder:
    """Finds what lies in a module with a stand-in, which is imported first."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), _LateModule):
            return None
        package = _import(parent)
        if name in sys.modules:
            return ModuleSpec(name, _Known(sys.modules[name]))  # type: ignore[arg-type]
        return PathFinder.find_spec(name, package.__path__, target)


class _Known:
    """Loads a module that its package has imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
