"""`file:PATH`: a checkpoint as a prior, or a TorchScript file whose code is trusted."""

from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, DataError, UnavailableError, one_line
from rela.pipeline.fingerprint import file_sha256
from rela.priors.earlier_run import BACKBONE_FILE
from rela.priors.prior import POOLED, Prior, PriorIdentity, PriorRequest

PREFIX, METAVAR, EXAMPLE = "file:", "PATH", "file:weights.pth"
ABOUT = "a checkpoint, with --arch NAME"
EXTRA, LITERAL = "", "@+,"
PACKAGES: dict[str, str] = {}
TORCHSCRIPT = "torchscript"  # in place of an architecture


def names() -> list[str]:
    """None to choose from."""
    return []


def resolve(request: PriorRequest) -> Prior:
    """The model `request.arch` with the weights in the file, or a TorchScript file itself.

    The preprocessing is that of the architecture's published weights. Where none are published, and for
    TorchScript, images have `request.image_size` pixels and ImageNet's mean and std; so had those of a
    run, whose file records its size. Raises ChoiceError without an architecture, UnsafeError for code
    that is not trusted.
    """
    from rela.models.torchscript import is_torchscript

    path = Path(request.name.removeprefix(PREFIX))
    if request.weights is not None:
        raise ChoiceError(f"--weights {request.weights} contradicts --prior {request.name}")
    if path.is_dir():
        raise UnavailableError(f"{path} is a folder, expected a weights file")
    if not path.is_file():
        raise UnavailableError(f"{path}: no such weights file")
    request = _as_the_run_saw(path, request)
    if request.arch is not None:
        import rela.priors as priors

        named = replace(request, name=request.arch, weights=path, arch=None, layer=POOLED)
        prior = priors.resolve(named)
        return replace(prior, identity=replace(prior.identity, name=display_name(path)))
    if not is_torchscript(path):
        raise ChoiceError(
            f"{path} does not record its architecture; add --arch, such as "
            "resnet18, resnet18_small, vit_b_16 or timm:vit_small_patch16_224"
        )
    return _scripted(path, request)


def _as_the_run_saw(path: Path, request: PriorRequest) -> PriorRequest:
    """The request with the architecture and the preprocessing that a run recorded in its file."""
    from rela.models.preprocessing import preprocessing_for
    from rela.models.weights import recorded_run

    recorded = recorded_run(path)
    if recorded is None or request.arch not in (None, recorded[0]):
        return request
    arch, trained_size = recorded
    size = request.image_size if request.resizes else trained_size
    seen = preprocessing_for(size)
    mean, std = (",".join(map(str, values)) for values in (seen.mean, seen.std))
    return replace(
        request,
        arch=arch,
        image_size=size,
        resizes=True,
        resize=request.resize or seen.resize,
        interpolation=request.interpolation or seen.interpolation,
        mean=request.mean or mean,
        std=request.std or std,
    )


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
        arch=TORCHSCRIPT,
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
    """The file's name; for a run's `backbone.safetensors`, that of the run in place of `backbone`.

    With its suffix: `resnet18.pth` is not torchvision's `resnet18`.
    """
    of_run = path.name == BACKBONE_FILE
    return one_line(path.resolve().parent.name + path.suffix if of_run else path.name)
