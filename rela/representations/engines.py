"""Ways to compute a network on a CPU, and the fastest of them for a network, found by trying.

Engines: "eager" is PyTorch, "onednn" PyTorch with oneDNN's linear layers; the packages "onnxruntime" and
"openvino" compile the network. Precisions: "float32" and "bf16". On a GPU: rela.representations.compilation.
"""

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from rela.errors import ChoiceError, one_line, require
from rela.representations.linear import OneDnnLinear

LARGEST_DIFFERENCE = 1e-5  # of float32 features; rounding to float16 changes them by up to 5e-4
LEAST_COSINE = 0.99  # of bf16 features
LEAST_GAIN = 1.2  # a smaller one may be noise, which must not decide
_HOPELESS_GAIN = 1.1  # in the first round
_ROUNDS = 3
# What "torch", "auto" and the names stand for, the preferred first. "auto" needs one that compiles.
_CANDIDATES = {
    "float32": {"torch": ("onednn",), "auto": ("onednn", "openvino", "onnxruntime"), "eager": ()},
    "bf16": {"torch": ("eager",), "auto": ("eager", "openvino"), "eager": ("eager",)},
}

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Engine:
    """What computes features, and how it compares with eager float32 on the first images.

    - `speedup`: how many times as fast; None if that was not measured;
    - `difference`: ‖f − e‖ / ‖e‖ of its features f and the eager ones e;
    - `cosine`: the mean cosine of both, less their means over the images.
    """

    name: str = "eager"
    precision: str = "float32"
    speedup: float | None = None
    difference: float = 0.0
    cosine: float = 1.0

    @property
    def words(self) -> str:
        """One line."""
        eager = "float16" if self.precision == "float16" else "float32"
        rate = "" if self.speedup is None else f"{self.speedup:.2g} × as fast as eager {eager}, "
        return (
            f"engine {self.name}, {self.precision}: {rate}features differ by {self.difference:.0e} "
            f"(centred cosine {self.cosine:.4f})"
        )


def build(engine: Engine, network: nn.Module, images: Tensor) -> Forward:
    """Normalised images float32 [B, 3, S, S] → features float32 [B, D], for any B.

    `images` are examples. Raises ChoiceError if a package is missing, or the network cannot be compiled.
    """
    try:
        if engine.name == "onnxruntime":
            return _onnxruntime(network, images)
        if engine.name == "openvino":
            return _openvino(network, images, engine.precision)
    except ChoiceError:
        raise
    except Exception as error:  # of any kind, from the compilers
        raise ChoiceError(
            f"engine {engine.name} cannot compute {type(network).__name__} "
            f"({one_line(str(error))[:200]}); use --engine eager"
        ) from error
    if engine.name == "onednn":
        return _onednn(network)
    return _autocast(network) if engine.precision == "bf16" else network


def choose(
    wanted: str, precision: str, network: nn.Module, images: Tensor, say: Callable[[str], None]
) -> tuple[Engine, Forward]:
    """The engine `wanted`, or the fastest of those that "torch" or "auto" mean, and its forward pass.

    Float32 engines replace eager PyTorch if they agree and are `LEAST_GAIN` times as fast; a named one is
    not timed. Raises ChoiceError if a named one is missing or does not agree, and for bf16 that is slower.
    """
    several = _CANDIDATES[precision]
    names = several.get(wanted, (wanted,))
    if wanted != "onednn" and not any(weights.ndim == 2 for weights in network.parameters()):
        names = tuple(name for name in names if name != "onednn")  # it has no linear layers
    if precision == "bf16" and not {"eager", "openvino"}.issuperset(names):
        raise ChoiceError(f"engine {wanted} has no bf16; use --engine eager or openvino")
    best: tuple[Engine, Forward] | None = None if precision == "bf16" else (Engine(), network)
    exact = _features(network, images) if names else images
    has_compiled = False
    for name in names:
        if has_compiled:
            break
        try:
            found, forward = _agreeing(Engine(name, precision), network, images, exact)
        except ChoiceError as error:
            if wanted == name or names == ("eager",):
                raise
            if wanted == "auto":
                say(f"not used: {error}")
            continue
        if wanted == name and precision == "float32":
            return found, forward
        has_compiled = name == "openvino"
        found = replace(found, speedup=_speedup(network, forward, images))
        least = 1.0 if best is None else LEAST_GAIN * (best[0].speedup or 1.0)
        if (found.speedup or 0.0) >= least:
            best = found, forward
        elif best is None:
            say(f"not used: {found.words}")
    if best is None:
        raise ChoiceError("no engine is both faster and exact in bf16 here; leave --precision out")
    return best


def agreement(engine: Engine, forward: Forward, network: nn.Module, images: Tensor) -> Engine:
    """The engine with the differences of its features from eager float32 ones."""
    return compare(engine, _features(forward, images), _features(network, images))


def _agreeing(
    engine: Engine, network: nn.Module, images: Tensor, exact: Tensor
) -> tuple[Engine, Forward]:
    """The engine and its differences; raises ChoiceError if they are too large."""
    forward = build(engine, network, images)
    found = compare(engine, _features(forward, images), exact)
    if engine.precision == "bf16":
        if not found.cosine >= LEAST_COSINE:
            raise ChoiceError(
                f"{found.words}, at least {LEAST_COSINE} expected; leave --precision out"
            )
    elif not found.difference <= LARGEST_DIFFERENCE:
        raise ChoiceError(
            f"{found.words}, at most {LARGEST_DIFFERENCE:.0e} expected; use --engine eager"
        )
    return found, forward


def compare(engine: Engine, features: Tensor, exact: Tensor) -> Engine:
    """The engine with the differences of its features from the exact ones."""
    distance, size = float((features - exact).norm()), float(exact.norm())
    mean = exact.mean(dim=0) if len(exact) > 1 else 0.0
    cosine = functional.cosine_similarity(features - mean, exact - mean).mean()
    return replace(engine, difference=distance / size if size else distance, cosine=float(cosine))


@torch.inference_mode()
def _features(forward: Forward, images: Tensor) -> Tensor:
    return forward(images).double()


@torch.inference_mode()
def _speedup(eager: Forward, other: Forward, images: Tensor) -> float:
    """Median ratio of alternating rounds; both have been called before."""
    ratios: list[float] = []
    while len(ratios) < _ROUNDS and not (ratios and ratios[0] < _HOPELESS_GAIN):
        ratios.append(_seconds(eager, images) / _seconds(other, images))
    return statistics.median(ratios)


def _seconds(forward: Forward, images: Tensor) -> float:
    start = time.process_time()  # of all threads; other work on the machine disturbs it less
    forward(images)
    return time.process_time() - start


def _onednn(network: nn.Module) -> Forward:
    def forward(images: Tensor) -> Tensor:
        with OneDnnLinear():
            features: Tensor = network(images)
        return features

    return forward


def _autocast(network: nn.Module) -> Forward:
    def forward(images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features: Tensor = network(images)
        return features.float()

    return forward


def _onnxruntime(network: nn.Module, images: Tensor) -> Forward:
    from rela.models.onnx_export import INPUT, write_onnx

    runtime = require("onnxruntime", "onnxruntime", "--engine onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # loading needs the cores
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(path, network, images.shape[-1], {})
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(images: Tensor) -> Tensor:
        (features,) = session.run(None, {INPUT: images.contiguous().numpy()})
        return torch.from_numpy(features)

    return forward


def _openvino(network: nn.Module, images: Tensor, precision: str) -> Forward:
    # importing openvino starts its telemetry, if that is there
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = require("openvino", "openvino", "--engine openvino")
    example = images[:2].contiguous()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about tracing
        model = openvino.convert_model(
            network, example_input=example, input=openvino.PartialShape([-1, *example.shape[1:]])
        )
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def forward(images: Tensor) -> Tensor:
        (features,) = compiled(images.contiguous().numpy()).values()
        return torch.from_numpy(features)

    return forward
