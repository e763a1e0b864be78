"""`timm:NAME`: priors from timm, with their published weights or a local file."""

from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, one_line
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
    from rela.models.foreign_checkpoints import find_encoder
    from rela.models.preprocessing import published_preprocessing
    from rela.models.timm_models import (
        check_timm_name,
        create_timm_model,
        require_timm,
        timm_classifier_keys,
    )

    timm, bare = require_timm(), check_timm_name(request.name)
    config = timm.get_pretrained_cfg(bare)
    if request.weights is not None and "." not in bare:
        config = _config_of_file(timm, bare, request.weights.name) or config
    data = timm.data.resolve_data_config(config.to_dict())
    preprocessing = published_preprocessing(
        request.name,
        input_size=(request.image_size,) * 2 if request.resizes else data["input_size"][1:],
        crop_share=data["crop_pct"],
        crop_mode="center" if request.resize else data["crop_mode"],
        interpolation=request.interpolation or data["interpolation"],
        mean=data["mean"],
        std=data["std"],
    )
    if request.weights is None:
        resized = request.resizes and preprocessing.crop != data["input_size"][1]
        options = create_timm_model(request.name, preprocessing.crop)[1] if resized else {}
        backbone = _published(timm, bare, config, options)
        return prior_with(backbone.eval(), request.name, request.name, preprocessing)

    path = request.weights
    for _ in range(2):
        backbone, _ = create_timm_model(request.name, preprocessing.crop)
        encoder = find_encoder(
            backbone, path, timm_classifier_keys(backbone), request.trust_code, request.encoder
        )
        trained = encoder.trained_image_size(backbone, preprocessing.crop)
        if request.resizes or trained in (None, preprocessing.crop):
            break
        preprocessing = preprocessing.at(trained)
    encoder.load(backbone, path)
    name = f"{request.name}@{one_line(path.name)}"
    return prior_with(backbone.eval(), name, request.name, preprocessing, path, encoder.note())


def names() -> list[str]:
    """See `PriorKind.names`."""
    from rela.models.timm_models import timm_names

    return timm_names()


def _config_of_file(timm: Any, bare: str, file: str) -> Any | None:
    """timm's configuration of the published weights that this is the file of, by its name."""
    for name in timm.list_pretrained(f"{bare}.*"):
        config = timm.get_pretrained_cfg(name)
        files = (config.url or "").rpartition("/")[2], f"{name}.safetensors", f"{name}.pth"
        if file in files:
            return config
    return None


def _published(timm: Any, bare: str, config: Any, options: dict[str, Any]) -> "nn.Module":
    """Loading by timm, with the classifier: without it, timm does not check that all keys are there.

    `options` are those of another image size; timm interpolates position embeddings.
    """
    import warnings
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
        with weights_from_hub(f"timm:{bare}", place), warnings.catch_warnings(action="ignore"):
            model: Any = timm.create_model(bare, pretrained=True, **options)
    except (RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        if options:  # the weights are of the published size
            raise ChoiceError(
                f"the weights of timm:{bare} cannot be used at another size than the published one "
                f"({str(error).splitlines()[0]}); remove --image-size"
            ) from error
        raise DataError(
            f"the weights of timm:{bare} do not fit ({str(error).splitlines()[0]}); remove them "
            "from the cache of huggingface_hub and try again"
        ) from error
    model.reset_classifier(0)
    return model  # type: ignore[no-any-return]
