"""A backbone as an ONNX file (extra `onnx`), for programs without PyTorch."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rela.errors import ChoiceError, require

INPUT, OUTPUT = "images", "features"
_MAX_BYTES = (1 << 31) - 1  # of a protocol buffer


def require_onnx() -> Any:
    """The package; raises ChoiceError with the command that installs it and onnxscript."""
    require("onnxscript", "onnx", "ONNX files")
    return require("onnx", "onnx", "ONNX files")


def write_onnx(path: Path, backbone: nn.Module, image_size: int, metadata: dict[str, Any]) -> None:
    """Write `images` float32 [batch, 3, S, S], normalised → `features` float32 [batch, D], any batch.

    `metadata` goes into the model's `metadata_props`, values other than text as JSON. Raises ChoiceError
    for models that ONNX cannot express, or that exceed the 2 GiB of one file.
    """
    onnx = require_onnx()
    num_bytes = sum(t.numel() * t.element_size() for t in backbone.state_dict().values())
    if num_bytes > _MAX_BYTES:
        raise ChoiceError(
            f"the model has {num_bytes:,} bytes of weights, an ONNX file holds {_MAX_BYTES:,}; choose "
            "another format"
        )
    model = _translated(backbone.eval(), image_size)
    for name, value in sorted(metadata.items()):
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        onnx.helper.set_model_props(
            model, {**{p.key: p.value for p in model.metadata_props}, name: text}
        )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _translated(backbone: nn.Module, image_size: int) -> Any:
    images = torch.zeros(2, 3, image_size, image_size)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own internals
            program = torch.onnx.export(
                backbone, (images,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ChoiceError(
            f"{type(backbone).__name__} cannot be written as ONNX ({reason}); choose another format"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    return program.model_proto
