"""`clip:NAME` or `clip:NAME@TAG`: CLIP models from open_clip (extra `clip`), image towers and texts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, one_line, require
from rela.priors.prior import Prior, PriorRequest, prior_with

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rela.models.preprocessing import Preprocessing

PREFIX, METAVAR, EXAMPLE = "clip:", "NAME", "clip:ViT-B-16"
ABOUT = "downloaded on first use"
EXTRA = "clip"
PACKAGES = {"open_clip": "open_clip_torch"}
LITERAL = "@"  # before the tag
_DEFAULT_TAG = "openai"


def resolve(request: PriorRequest) -> Prior:
    """An image tower, OpenAI's unless another tag is named: images → `encode_image`'s vectors [B, D].

    The vectors are projected and not normalised. The tag also determines preprocessing and activation for
    weights in a local file, of the whole model (`visual.…`) or only the tower. Raises ChoiceError for
    unknown names and tags, UnavailableError without a network, DataError for other weights.
    """
    from rela.models.foreign_checkpoints import find_encoder

    open_clip = require("open_clip", EXTRA, f"{PREFIX}{METAVAR}")
    model_name, _, given_tag = request.name.removeprefix(PREFIX).partition("@")
    config = _tag_config(open_clip, model_name, given_tag or _DEFAULT_TAG, request)
    if request.interpolation is not None:
        config["interpolation"] = request.interpolation
    if request.resize is not None:
        config["resize_mode"] = "shortest"
    preprocessing = _preprocessing(request.name, open_clip, model_name, config)
    if request.resizes and request.image_size != preprocessing.crop:
        published_size, preprocessing = preprocessing.crop, preprocessing.at(request.image_size)
        if not hasattr(_create(open_clip, model_name, None, config), "grid_size"):
            raise ChoiceError(
                f"{request.name} takes images of {published_size}×{published_size} pixels; remove "
                "--image-size"
            )
    size, name, note = preprocessing.crop, request.name, ""
    if request.weights is not None:
        name = f"{request.name}@{one_line(request.weights.name)}"
        backbone = _create(open_clip, model_name, None, config, size)
        encoder = find_encoder(backbone, request.weights, [], request.trust_code, request.encoder)
        encoder.load(backbone, request.weights)
        note = encoder.note()
    else:
        backbone = _published(open_clip, model_name, given_tag or _DEFAULT_TAG, config, size)
    arch = f"{PREFIX}{model_name}" + ("+quickgelu" if config.get("quick_gelu") else "")
    return prior_with(backbone.eval(), name, arch, preprocessing, request.weights, note)


def text_features(request: PriorRequest, texts: Sequence[str]) -> "tuple[Tensor, str]":
    """`encode_text`'s vectors [N, D] float32 of texts, and the digest of the image tower beside it.

    They are compared with the image tower's by their cosine. Raises as `resolve`, and DataError for a file
    with the image tower only.
    """
    import torch

    from rela.models.foreign_checkpoints import find_encoder
    from rela.models.weights import state_sha256

    open_clip = require("open_clip", EXTRA, f"{PREFIX}{METAVAR}")
    model_name, _, given_tag = request.name.removeprefix(PREFIX).partition("@")
    tag = given_tag or _DEFAULT_TAG
    config, path = _tag_config(open_clip, model_name, tag, request), request.weights
    size = request.image_size if request.resizes else None
    if path is None:
        with _refused(f"{PREFIX}{model_name}@{tag}"):
            published = _downloaded(open_clip, model_name, tag, config)
            model = _whole(open_clip, model_name, published, config, size)
    else:
        model = _whole(open_clip, model_name, None, config, size)
        try:
            find_encoder(model, path, [], request.trust_code, request.encoder).load(model, path)
        except DataError as error:
            raise DataError(
                f"{path} has no text tower of {PREFIX}{model_name}; give --weights the whole model"
            ) from error
    with torch.no_grad():
        vectors = model.eval().encode_text(open_clip.get_tokenizer(model_name)(list(texts)))
    return vectors.float(), state_sha256(model.visual.state_dict())


def names() -> list[str]:
    """Every tower of OpenAI's, and every tower with a tag; empty without open_clip."""
    try:
        import open_clip
    except ImportError:
        return []
    return [f"{PREFIX}{name}@{tag}" for name, tag in open_clip.list_pretrained()]


def _tag_config(open_clip: Any, model_name: str, tag: str, request: PriorRequest) -> dict[str, Any]:
    """open_clip's configuration of published weights: mean, std, interpolation, activation."""
    from rela.models.similar_names import similar_names

    if model_name not in open_clip.list_models():
        close = similar_names(model_name, open_clip.list_models())
        names = ", ".join(PREFIX + n for n in close or ["ViT-B-16", "RN50"])
        raise ChoiceError(f"no model {request.name!r}; did you mean {names}?")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if request.weights is not None and "@" not in request.name:
        configs = [open_clip.get_pretrained_cfg(model_name, t) for t in tags]
        of_file = [c for c in configs if _file_of(c) == request.weights.name]
        if of_file:
            return dict(of_file[0])
        if len({_meaning(open_clip.get_pretrained_cfg(model_name, t)) for t in tags}) > 1:
            names = ", ".join(f"{PREFIX}{model_name}@{t}" for t in tags)
            raise ChoiceError(
                f"--weights {request.weights}: activation and preprocessing depend on the origin of the "
                f"weights; name it as one of {names}"
            )
        if tag not in tags:
            return dict(open_clip.get_pretrained_cfg(model_name, tags[0])) if tags else {}
    if tag not in tags:
        names = ", ".join(f"{PREFIX}{model_name}@{t}" for t in tags) or "none"
        raise ChoiceError(
            f"{PREFIX}{model_name} has no weights {tag!r}; choose one of {names}, or give --weights FILE"
        )
    return dict(open_clip.get_pretrained_cfg(model_name, tag))


def _file_of(config: dict[str, Any]) -> str:
    """The name of the published file."""
    return str(config.get("url", "")).rpartition("/")[2]


def _meaning(config: dict[str, Any]) -> str:
    """The part of a tag's configuration that changes features: everything but the file's location."""
    keys = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")
    return str([config.get(key) or None for key in keys])


def _create(
    open_clip: Any,
    model_name: str,
    pretrained: str | None,
    config: dict[str, Any],
    image_size: int | None = None,
) -> "nn.Module":
    """The image tower, with the activation of the weights in the file `pretrained`.

    For another `image_size` than its own, open_clip interpolates the position embeddings.
    """
    tower: nn.Module = _whole(open_clip, model_name, pretrained, config, image_size).visual
    return tower


def _whole(
    open_clip: Any,
    model_name: str,
    pretrained: str | None,
    config: dict[str, Any],
    image_size: int | None,
) -> Any:
    """Both towers."""
    with _quiet():
        return open_clip.create_model(
            model_name,
            pretrained=pretrained,
            force_quick_gelu=bool(config.get("quick_gelu")),
            pretrained_text=False,
            force_image_size=image_size,
        )


def _published(
    open_clip: Any, model_name: str, tag: str, config: dict[str, Any], image_size: int
) -> "nn.Module":
    """Loading by open_clip: strict, and only tensors."""
    with _refused(f"{PREFIX}{model_name}@{tag}"):
        path = _downloaded(open_clip, model_name, tag, config)
        return _create(open_clip, model_name, path, config, image_size)


def _downloaded(open_clip: Any, model_name: str, tag: str, config: dict[str, Any]) -> str:
    """The file of published weights, downloaded if it is not there."""
    from rela.models.hub import weights_from_hub

    place = config.get("hf_hub", "").strip("/")
    source = f"the model file of https://huggingface.co/{place}" if place else config.get("url", "")
    with weights_from_hub(f"{PREFIX}{model_name}@{tag}", source), _quiet():
        return str(open_clip.download_pretrained(config))


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Raise DataError for published weights that do not fit."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise DataError(
            f"the weights of {name} do not fit ({str(error).splitlines()[0]}); remove them from "
            "the cache of huggingface_hub and try again"
        ) from error


def _preprocessing(
    name: str, open_clip: Any, model_name: str, config: dict[str, Any]
) -> "Preprocessing":
    """open_clip's preprocessing: defaults are OpenAI's, the tag overrides them."""
    from rela.models.preprocessing import published_preprocessing

    size = open_clip.get_model_config(model_name)["vision_cfg"]["image_size"]
    wanted = asdict(open_clip.transform.PreprocessCfg(size=size)) | config
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return published_preprocessing(
        name,
        input_size=(height, width),
        crop_share=1.0,
        crop_mode=wanted["resize_mode"],
        interpolation=wanted["interpolation"],
        mean=wanted["mean"],
        std=wanted["std"],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip, which logs to the root logger, from configuring it for the whole process."""
    import logging

    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
