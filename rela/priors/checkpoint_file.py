"""`file:PATH`: a checkpoint as a prior, or a TorchScript file whose code is trusted."""

from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, DataError, UnavailableError
from rela.pipeline.fingerprint import file_sha256
from rela.priors.earlier_run import BACKBONE_FILE
from rela.priors.prior import POOLED, Prior, PriorIdentity, PriorRequest

PREFIX, METAVAR, EXAMPLE = "file:", "PATH", "file:weights.pth"
ABOUT = "a checkpoint, with --arch NAME"
EXTRA, LITERAL = "", "@+,"
PACKAGES: dict[str, str] = {}


def resolve(request: PriorRequest) -> Prior:
    """The model `request.arch` with the weights in the file, or a TorchScript file itself.

    Either takes images of `request.image_size` pixels with ImageNet's mean and std, since a file does not
    record its preprocessing. A CLIP tower keeps its own. Raises ChoiceError without an architecture,
    UnsafeError for code that is not trusted.
    """
    from rela.models.torchscript import is_torchscript

    path = Path(request.name.removeprefix(PREFIX))
    if request.weights is not None:
        raise ChoiceError(f"--weights {request.weights} contradicts --prior {request.name}")
    if path.is_dir():
        raise UnavailableError(f"{path} is a folder, expected a weights file")
    if not path.is_file():
        raise UnavailableError(f"{path}: no such weights file")
    if request.arch is not None:
        import rela.priors as priors

        named = replace(
            request,
            name=request.arch,
            weights=path,
            arch=None,
            layer=POOLED,
            resizes=False,  # there is no published size to replace
            ignores_published_preprocessing=True,
        )
        prior = priors.resolve(named)
        return replace(prior, identity=replace(prior.identity, name=display_name(path)))
    if not is_torchscript(path):
        raise ChoiceError(
            f"{path} does not record its architecture; add --arch, such as "
            "resnet18, resnet18_small, vit_b_16 or timm:vit_small_patch16_224"
        )
    return _scripted(path, request)


def _scripted(path: Path, request: PriorRequest) -> Prior:
    if request.layer != POOLED:
        raise ChoiceError(
            f"--layer {request.layer}: layers of a TorchScript file cannot be accessed; remove "
            "--layer"
        )
    import torch

    from rela.models.preprocessing import preprocessing_for
    from rela.models.torchscript import ScriptedBackbone, open_torchscript

    script = open_torchscript(path, request.trust_code)
    backbone = ScriptedBackbone(script, str(path)).eval()
    size = request.image_size
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, size, size))
    if len(features) != 2:
        raise DataError(f"{path} returns {len(features)} vectors for two images, expected 2")
    identity = PriorIdentity(
        name=display_name(path),
        arch="torchscript",
        image_size=size,
        weights_sha256=file_sha256(path),
        preprocessing=preprocessing_for(size),
        feature_dim=int(features.shape[1]),
    )
    return Prior(
        identity,
        lambda: backbone,
        path,
        f"running the code of {path}, SHA-256 {identity.weights_sha256}",
    )


def display_name(path: Path) -> str:
    """The file's name; for a run's `backbone.safetensors`, the run's name."""
    return path.resolve().parent.name if path.name == BACKBONE_FILE else path.stem
