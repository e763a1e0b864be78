"""`timm:NAME`: priors from timm, with their published weights or a local file."""

from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError
from rela.priors.prior import Prior, PriorRequest, prior_with

if TYPE_CHECKING:
    from torch import nn

PREFIX, METAVAR, EXAMPLE = "timm:", "NAME", "timm:resnet18.a1_in1k"
ABOUT = "downloaded on first use"
EXTRA, LITERAL = "timm", ""
PACKAGES = {"timm": "timm"}


def resolve(request: PriorRequest) -> Prior:
    """A timm model by name, with the preprocessing of its own data configuration.

    Raises ChoiceError for unknown names and for preprocessing that is not a centre crop,
    UnavailableError saying what to fetch without a network, DataError for weights that do not fit.
    """
    from rela.models.foreign_checkpoints import load_backbone_weights
    from rela.models.preprocessing import preprocessing_for, published_preprocessing
    from rela.models.timm_models import (
        check_timm_name,
        create_timm_model,
        require_timm,
        resize_timm_model,
        timm_classifier_keys,
    )

    timm, bare = require_timm(), check_timm_name(request.name)
    config = timm.get_pretrained_cfg(bare)
    data = timm.data.resolve_data_config(config.to_dict())
    published_size = data["input_size"][1:]
    if request.ignores_published_preprocessing:
        preprocessing = preprocessing_for(request.image_size)
    else:
        preprocessing = published_preprocessing(
            request.name,
            input_size=(request.image_size,) * 2 if request.resizes else published_size,
            crop_share=data["crop_pct"],
            crop_mode=data["crop_mode"],
            interpolation=data["interpolation"],
            mean=data["mean"],
            std=data["std"],
        )
    name, note = request.name, ""
    if request.weights is not None:
        name = f"{request.name}@{request.weights.stem}"
        built_for = published_size[0] if request.resizes else preprocessing.crop
        backbone, _ = create_timm_model(request.name, built_for)
        classifier = timm_classifier_keys(backbone)
        note = load_backbone_weights(backbone, request.weights, classifier, request.trust_code)
    else:
        backbone = _published(timm, bare, config)
    if request.resizes:
        resize_timm_model(backbone, request.image_size)
    return prior_with(backbone.eval(), name, request.name, preprocessing, request.weights, note)


def _published(timm: Any, bare: str, config: Any) -> "nn.Module":
    """Loading by timm, with the classifier: without it, timm does not check that all keys are there."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    from rela.models.hub import weights_from_hub

    if not config.has_weights:
        raise ChoiceError(
            f"timm:{bare} has no published weights; give --weights FILE, or use "
            f"--prior random:timm:{bare}"
        )
    place = config.url
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        place = f"{file} of https://huggingface.co/{config.hf_hub_id}"
    try:
        with weights_from_hub(f"timm:{bare}", place):
            model: Any = timm.create_model(bare, pretrained=True)
    except (RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise DataError(
            f"the weights of timm:{bare} do not fit ({str(error).splitlines()[0]}); remove them "
            "from the cache of huggingface_hub and try again"
        ) from error
    model.reset_classifier(0)
    return model  # type: ignore[no-any-return]
