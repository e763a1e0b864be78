"""Which engine computes the parts of a result: chosen once, recorded beside them, used by every process."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from rela.errors import ChoiceError
from rela.pipeline import Say
from rela.pipeline.errors import AlreadyPublishedError
from rela.pipeline.files import replacing
from rela.pipeline.parts import PartStore
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.schema import as_type, read_json

if TYPE_CHECKING:
    from rela.data.beton.reader import Beton
    from rela.representations.embedder import Embedder

_FILE = "engine.json"
_ON_CPU, _ON_GPU = ("onednn", "onnxruntime", "openvino"), ("compiled",)
_FEWEST_IMAGES = 512  # the gain of a choice among fewer is less than its cost


class _Record(Struct, frozen=True):
    name: str
    precision: str
    speedup: float | None
    difference: float
    cosine: float


def settle_engine(
    embedder: "Embedder",
    beton: "Beton",
    stores: Sequence[PartStore],
    settings: EmbedSettings,
    num_images: int,
    say: Say,
) -> None:
    """Compute by the engine with which the parts were begun, else by the one that is chosen now.

    `stores`: of one forward pass, begun with one engine or not at all; `num_images`: of the whole job.

    Raises ChoiceError for an engine or precision that cannot be used here.
    """
    from rela.representations.engines import Engine

    wanted, precision = settings.engine, settings.precision
    on_cpu = embedder.device.type == "cpu"
    if wanted in _ON_GPU and on_cpu:
        raise ChoiceError(f"--engine {wanted} is for GPUs; leave it out, or use --device cuda")
    if not on_cpu and (wanted in _ON_CPU or precision != "auto"):
        option = "--precision bf16" if precision != "auto" else f"--engine {wanted}"
        raise ChoiceError(f"{option} is for CPUs; leave it out, or use --device cpu")
    engine = begun_with(stores[0])
    if engine is not None and engine.name in (_ON_GPU if on_cpu else _ON_CPU):
        engine = Engine()  # the finished parts are of another device
    if engine is None:
        if not on_cpu:
            embedder.choose_compiled(beton, num_images * (settings.crops or 1), wanted, say)
        else:
            arithmetic = "float32" if precision == "auto" else precision
            embedder.choose_engine(beton, asked_engine(settings, num_images), arithmetic, say)
        if on_cpu or embedder.engine.name in _ON_GPU:  # eager on a GPU has no record
            with contextlib.suppress(AlreadyPublishedError):  # another process was faster
                _record(stores[0], embedder.engine)
        engine = recorded_engine(stores[0]) or embedder.engine
    elif wanted not in ("torch", "auto", engine.name):
        say(f"continues with engine {engine.name}, which computed the finished parts")
    for store in stores[1:]:
        if begun_with(store) is None and recorded_engine(stores[0]) is not None:
            with contextlib.suppress(AlreadyPublishedError):
                _record(store, engine)
    embedder.use_engine(beton, engine)
    if engine != Engine():
        say(engine.words)


def asked_engine(settings: EmbedSettings, num_images: int) -> str:
    """The wish by which an engine is chosen: for few images "eager" in place of "torch"."""
    is_few = num_images * (settings.crops or 1) < _FEWEST_IMAGES
    is_open = settings.precision == "auto" and settings.engine == "torch"
    return "eager" if is_few and is_open else settings.engine


def continue_with(store: PartStore, donor: Representations) -> bool:
    """Compute missing parts by the engine of `donor`, if none is chosen; returns whether it is that one."""
    from rela.representations.engines import Engine

    known = donor.manifest.provenance.get("engine")
    theirs = Engine() if known is None else Engine(**structs.asdict(as_type(known, _Record)))
    if known is not None and recorded_engine(store) is None:
        with contextlib.suppress(AlreadyPublishedError):  # another process was faster
            _record(store, theirs)
    begun = begun_with(store) or theirs
    return bool((begun.name, begun.precision) == (theirs.name, theirs.precision))


def begun_with(store: PartStore) -> Any:
    """The `Engine` of the finished parts, or that is recorded for them; None if there is neither."""
    from rela.representations.engines import Engine

    return recorded_engine(store) or (Engine() if store.finished() else None)


def recorded_engine(store: PartStore) -> Any:
    """The `Engine` of these parts; None without a record."""
    from rela.representations.engines import Engine

    known = read_json(store.directory / _FILE, _Record)
    return None if known is None else Engine(**structs.asdict(known))


def _record(store: PartStore, engine: Any) -> None:
    path = store.directory / _FILE
    is_damaged = path.exists() and read_json(path, _Record) is None
    with replacing(path, clobber=is_damaged) as temporary:
        temporary.write_text(json.dumps(asdict(engine)))
