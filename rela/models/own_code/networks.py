"""Networks of code that is not rela's: given from Python, `module:NAME`, or by a package, `plugin:NAME`.

The code of the first is identified by a digest of its source, `module:NAME#DIGEST`, that of the second by
its package, `plugin:NAME#PACKAGE==VERSION`. Both are the caller's word: the source may call what changes.
Light: torch is imported only for a network.
"""

import copy
import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, one_line
from rela.models.own_code.plugins import MODELS, PREFIX, identified, load_plugin

if TYPE_CHECKING:
    from torch import nn

    from rela.models.preprocessing import Preprocessing

MODULE_PREFIX, PLUGIN_PREFIX = "module:", PREFIX
_DIGITS = 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LIBRARIES = ("torch", "builtins")  # known by their versions, not by their source


@dataclass(frozen=True)
class OwnNetwork:
    """`make(image_size)` builds it; `preprocessing`: what it expects to see as a prior, if that was said.

    `has_weights`: it is built with its own weights, not with random ones.
    """

    identified: str
    make: Callable[[int], "nn.Module"]
    preprocessing: "Preprocessing | None" = None
    has_weights: bool = False


_REGISTERED: dict[str, OwnNetwork] = {}


def is_own(name: str) -> bool:
    """Whether it names a network of the caller's, or of a plugin."""
    return name.startswith((MODULE_PREFIX, PLUGIN_PREFIX))


def is_network(value: Any) -> bool:
    """Whether the value is a network, not the name of one; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def register(
    network: "nn.Module | Callable[..., nn.Module]",
    name: str | None = None,
    preprocessing: Any = None,
) -> str:
    """Make a network known in this process; returns `module:NAME`, its name as a prior and as a model.

    - `network`: an nn.Module, from images [B, 3, S, S] float32 to features [B, D]; as a model to train it
      begins with its own weights. Or a function or class that makes one, without arguments or with
      `image_size`, in pixels; as a model to train its weights are drawn by the seed of the run;
    - `name`: that of its class or function by default;
    - `preprocessing`: what a prior expects to see, see `rela.models.transform.preprocessing_of`.

    Raises ChoiceError for anything else.
    """
    code_of: Any = type(network) if is_network(network) else network
    own = name or str(getattr(code_of, "__name__", type(code_of).__name__))
    if _NAME.fullmatch(own) is None:
        raise ChoiceError(
            f"name = {one_line(own)!r}: expected one of letters, digits, '_', '-' and '.'"
        )
    if preprocessing is not None:
        from rela.models.transform import preprocessing_of

        preprocessing = preprocessing_of(preprocessing)
    if is_network(network):
        kept = copy.deepcopy(network)  # not what is trained or changed afterwards

        def make(image_size: int) -> "nn.Module":
            return copy.deepcopy(kept)  # type: ignore[return-value]
    else:

        def make(image_size: int) -> "nn.Module":
            return made_by(network, image_size, own)

    code = _code_sha256(make(224), None if is_network(network) else network)
    identified = f"{MODULE_PREFIX}{own}#{code[:_DIGITS]}"
    _REGISTERED.pop(identified, None)  # the last one comes last
    _REGISTERED[identified] = OwnNetwork(identified, make, preprocessing, is_network(network))
    return f"{MODULE_PREFIX}{own}"


def made_by(function: Any, image_size: int, name: str) -> "nn.Module":
    """The network that a function or class makes; raises ChoiceError if it makes none."""
    try:
        takes_size = "image_size" in inspect.signature(function).parameters
        made = function(**({"image_size": image_size} if takes_size else {}))
    except (TypeError, ValueError) as error:
        raise ChoiceError(
            f"{name} cannot be called ({error}); expected a torch.nn.Module, or a function that makes one "
            "without arguments, or with image_size"
        ) from error
    if not is_network(made):
        raise ChoiceError(f"{name} returns {type(made).__name__}, expected a torch.nn.Module")
    return made  # type: ignore[no-any-return]


def registered(name: str, as_prior: bool = False) -> OwnNetwork:
    """The network `module:NAME`, the last one of that name, or `module:NAME#DIGEST`.

    `as_prior`: one that was given with its weights, if there is one. Raises ChoiceError if there is none.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    bare, _, code = name.partition("#")
    found = [each for each in _REGISTERED.values() if each.identified.startswith(f"{bare}#")]
    if not found:
        own = bare.removeprefix(MODULE_PREFIX)
        raise ChoiceError(
            f"{name} is a network of your own code, which is not known here; in Python call "
            f"rela.register(NETWORK, name={own!r}) first, then rela.train, rela.resume, rela.evaluate, ..."
        )
    if code:
        raise ChoiceError(
            f"the code of {found[-1].identified} is not that of {name}; register the code of then, a "
            "module as a module, a function that makes one as a function"
        )
    return max(reversed(found), key=lambda each: each.has_weights) if as_prior else found[-1]


def said_of_code(name: str) -> dict[str, str]:
    """What a manifest says of an architecture of own code, beside its name; empty for any other."""
    if name.startswith(MODULE_PREFIX):
        return {"code": "identified by a digest of its source, as the caller gave it"}
    if name.startswith(PLUGIN_PREFIX):
        return {"code": "identified by the version of its package, as that is installed"}
    return {}


def registered_names() -> list[str]:
    """`module:NAME` of all networks that were given."""
    return [name.partition("#")[0] for name in _REGISTERED]


def full_name(name: str) -> str:
    """`module:NAME#DIGEST` or `plugin:NAME#PACKAGE==VERSION` of either; other names as they are."""
    if name.startswith(MODULE_PREFIX):
        return registered(name).identified
    return identified(MODELS, name) if name.startswith(PLUGIN_PREFIX) else name


def build_own(name: str, image_size: int) -> "nn.Module":
    """The network of `module:NAME…` or `plugin:NAME…`, with weights by torch's random state.

    Raises ChoiceError if this process does not have it, DataError for a plugin that fails.
    """
    if name.startswith(MODULE_PREFIX):
        return registered(name).make(image_size)
    function = load_plugin(MODELS, name)
    try:
        return made_by(function, image_size, name)
    except Exception as error:
        raise DataError(f"{name} fails: {type(error).__name__}: {one_line(str(error))}") from error


def _code_sha256(network: "nn.Module", factory: Any) -> str:
    """Of the structure as `repr` shows it, and of the source of every class that is not torch's."""
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
    classes = {type(module) for module in network.modules()}
    bases = {base for each in classes for base in each.__mro__}
    sources = {_qualified(base): _source(base) for base in bases if _is_own_code(base)}
    if factory is not None:
        sources["made by"] = _source(factory)
    digest = hashlib.sha256(structure.encode())
    for name in sorted(sources):
        digest.update(f"\n{name}\n{sources[name]}".encode())
    return digest.hexdigest()


def _qualified(code: Any) -> str:
    return str(getattr(code, "__qualname__", type(code).__name__))


def _is_own_code(code: Any) -> bool:
    return (code.__module__ or "").partition(".")[0] not in _LIBRARIES


def _source(code: Any) -> str:
    """Its source; empty where there is none, as for what was typed at a prompt."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return ""
