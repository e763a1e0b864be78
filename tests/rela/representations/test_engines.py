"""Which engine is chosen at which speed and agreement; that engines agree with eager PyTorch."""

import re
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from rela.errors import ChoiceError
from rela.representations import engines
from rela.representations.engines import Engine, build, choose

IMAGES = torch.randn((4, 3, 8, 8), generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """A linear layer of tokens, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        """Means of the layer's outputs."""
        return self.layer(images.permute(0, 2, 1, 3).flatten(2)).mean(dim=1)


NETWORK = Tokens().eval()
# engine: times as fast as eager float32, relative error of its features
Sides = dict[str, tuple[float, float]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sides], None]:
    """Engines of these speeds and errors, timed by a fake clock; others are not installed."""

    def replace(sides: Sides) -> None:
        def fake(engine: Engine, network: nn.Module, images: Tensor) -> engines.Forward:
            if engine.name not in sides:
                raise ChoiceError(f"{engine.name} is missing")
            speed, error = sides[engine.name]

            def forward(images: Tensor) -> Tensor:
                features: Tensor = network(images)
                return features * (1 + error) + 0 * torch.randn_like(features)

            forward.speed = speed  # type: ignore[attr-defined]
            return forward

        monkeypatch.setattr(engines, "build", fake)
        monkeypatch.setattr(
            engines, "_seconds", lambda forward, images: 1 / getattr(forward, "speed", 1.0)
        )

    return replace


EXACT = 1e-6
CHOICES: list[tuple[str, str, Sides, str]] = [
    ("torch", "float32", {"onednn": (1.75, EXACT)}, "onednn"),
    ("torch", "float32", {"onednn": (1.19, EXACT)}, "eager"),
    ("torch", "float32", {"onednn": (0.5, EXACT)}, "eager"),
    ("torch", "float32", {"onednn": (9.0, 1e-4)}, "eager"),
    ("torch", "float32", {"onednn": (9.0, float("nan"))}, "eager"),
    ("torch", "float32", {}, "eager"),
    ("torch", "float32", {"onednn": (1.0, EXACT), "openvino": (9.0, EXACT)}, "eager"),
    ("auto", "float32", {"onednn": (1.0, EXACT), "openvino": (4.0, EXACT)}, "openvino"),
    ("auto", "float32", {"onnxruntime": (3.9, EXACT), "onednn": (2.0, EXACT)}, "onnxruntime"),
    ("auto", "float32", {"onnxruntime": (3.0, EXACT), "openvino": (4.0, EXACT)}, "openvino"),
    ("auto", "float32", {"onnxruntime": (3.0, EXACT), "openvino": (4.0, 0.1)}, "onnxruntime"),
    ("auto", "float32", {"onnxruntime": (9.0, EXACT), "openvino": (1.1, EXACT)}, "eager"),
    ("auto", "float32", {"onnxruntime": (0.9, EXACT), "openvino": (1.1, EXACT)}, "eager"),
    ("auto", "float32", {}, "eager"),
    ("eager", "float32", {}, "eager"),
    ("onnxruntime", "float32", {"onnxruntime": (0.5, EXACT)}, "onnxruntime"),
    ("torch", "bf16", {"eager": (1.8, 5e-3)}, "eager"),
    ("auto", "bf16", {"eager": (1.8, 5e-3), "openvino": (3.6, 5e-3)}, "openvino"),
    ("auto", "bf16", {"eager": (1.8, 5e-3), "openvino": (1.9, 5e-3)}, "eager"),
    ("auto", "bf16", {"eager": (0.8, 5e-3), "openvino": (1.1, 5e-3)}, "openvino"),
]


@pytest.mark.parametrize(("wanted", "precision", "sides", "expected"), CHOICES)
def test_the_choice(
    pretend: Callable[[Sides], None], wanted: str, precision: str, sides: Sides, expected: str
) -> None:
    pretend(sides)
    found, forward = choose(wanted, precision, NETWORK, IMAGES, lambda text: None)
    assert (found.name, found.precision) == (expected, precision)
    speed, error = sides.get(expected, (None, 0.0))
    is_timed = wanted != expected or precision == "bf16"
    assert found.speedup == (pytest.approx(speed) if is_timed and speed else None)
    assert found.difference == pytest.approx(error, rel=0.2)
    assert forward(IMAGES).shape == (4, 5)


REFUSED: list[tuple[str, str, Sides, str]] = [
    ("openvino", "float32", {}, "openvino is missing"),
    ("openvino", "float32", {"openvino": (9.0, 1e-3)}, "features differ by 1e-03.*at most 1e-05"),
    ("torch", "bf16", {"eager": (0.8, 5e-3)}, "no engine is both faster and exact"),
    ("torch", "bf16", {"eager": (2.0, -1.5)}, "centred cosine -0.*at least 0.99"),
    ("auto", "bf16", {"eager": (2.0, -1.5)}, "no engine is both faster and exact"),
    ("onnxruntime", "bf16", {}, "onnxruntime has no bf16"),
    ("onednn", "bf16", {}, "onednn has no bf16"),
]


@pytest.mark.parametrize(("wanted", "precision", "sides", "message"), REFUSED)
def test_refused(
    pretend: Callable[[Sides], None], wanted: str, precision: str, sides: Sides, message: str
) -> None:
    pretend(sides)
    with pytest.raises(ChoiceError, match=message):
        choose(wanted, precision, NETWORK, IMAGES, lambda text: None)


def test_only_networks_with_linear_layers_are_tried_with_onednn(
    pretend: Callable[[Sides], None],
) -> None:
    pretend({"onednn": (9.0, EXACT)})
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())
    assert choose("torch", "float32", network, IMAGES, print) == (Engine(), network)


def test_what_auto_leaves_out_is_said(pretend: Callable[[Sides], None]) -> None:
    said: list[str] = []
    pretend({"onednn": (0.9, EXACT)})
    choose("auto", "float32", NETWORK, IMAGES, said.append)
    assert said == [f"not used: {name} is missing" for name in ("openvino", "onnxruntime")]


@pytest.mark.parametrize(
    ("engine", "largest"),
    [
        (Engine("onednn"), 1e-6),
        (Engine("onnxruntime"), 1e-6),
        (Engine("openvino"), 1e-6),
        (Engine("eager", "bf16"), 1e-2),
        (Engine("openvino", "bf16"), 1e-2),
    ],
    ids=lambda value: "-".join((value.name, value.precision)) if isinstance(value, Engine) else "",
)
def test_engines_agree_with_float64(engine: Engine, largest: float) -> None:
    if engine.name == "openvino" and not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    with torch.inference_mode():
        expected = Tokens().double()
        expected.load_state_dict({k: v.double() for k, v in NETWORK.state_dict().items()})
        exact = expected(IMAGES.double())
    forward = build(engine, NETWORK, IMAGES[:2])
    with torch.inference_mode():
        for count in (1, 3, 4):  # other numbers of images than the examples
            found = forward(IMAGES[:count])
            assert found.dtype == torch.float32
            error = (found.double() - exact[:count]).norm() / exact[:count].norm()
            assert error < largest


def test_a_network_that_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("no such operator\nat line 3")

    monkeypatch.setattr(engines, "_onnxruntime", fail)
    with pytest.raises(
        ChoiceError, match=re.escape("cannot compute Tokens (no such operator\\nat")
    ):
        choose("onnxruntime", "float32", NETWORK, IMAGES, lambda text: None)
