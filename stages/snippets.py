"""Python code, ready to paste, that loads the output of a job. Tests execute it."""

from pathlib import Path

from rela.models.own_code.networks import MODULE_PREFIX, is_own
from rela.priors.earlier_run import BACKBONE_FILE
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.run import Run


def run_snippet(run: Run) -> str:
    """Code that loads a run's backbone."""
    return backbone_snippet(run.model, run.image_size, (run.path / BACKBONE_FILE).resolve())


def backbone_snippet(model: str, image_size: int, path: Path, with_timm: bool = False) -> str:
    """Code that makes `model`, which returns features [B, D], with the weights in `path`.

    `with_timm`: use timm for a torchvision model that it has too.
    """
    if is_own(model):
        name = model.partition("#")[0].removeprefix(MODULE_PREFIX)
        first = f"  # after rela.register({name})" if model.startswith(MODULE_PREFIX) else ""
        return f"import rela\nmodel, transform = rela.load_backbone({str(path)!r}){first}"
    if model.startswith("timm:") or with_timm:
        library, lines = "timm", _by_timm(model, image_size)
    else:
        library, lines = "torchvision", _by_torchvision(model, image_size)
    if path.suffix == ".safetensors":
        load, imports = f"load_file({str(path)!r})", ["from safetensors.torch import load_file"]
    else:
        load, imports = f"torch.load({str(path)!r}, weights_only=True)", []
    needs_torch = any("torch." in line for line in [load, *lines] if "torchvision." not in line)
    return "\n".join(
        [
            *(["import torch"] if needs_torch else []),
            f"import {library}",
            *imports,
            *lines,
            f"model.load_state_dict({load})",
            "model.eval()",
        ]
    )


def _by_timm(model: str, image_size: int) -> list[str]:
    from rela.models.timm_models import PREFIX, create_timm_model

    made_with = create_timm_model(model, image_size)[1] if model.startswith(PREFIX) else {}
    given = "".join(f", {key}={value}" for key, value in made_with.items())
    return [f"model = timm.create_model({model.removeprefix(PREFIX)!r}, num_classes=0{given})"]


def _by_torchvision(model: str, image_size: int) -> list[str]:
    import torch

    from rela.models.backbones import (
        build_classifier,
        classifier_modules,
        classifier_options,
        parse_model_name,
    )

    parsed = parse_model_name(model)
    name = parsed.torchvision_name
    with torch.device("meta"):  # structure without weights
        built = build_classifier(name, image_size)
    options = classifier_options(name, image_size)
    given = "".join(f", {key}={value}" for key, value in options.items())
    lines = [f"model = torchvision.models.get_model({name!r}, weights=None{given})"]
    if parsed.small:
        width = built.get_submodule("conv1").out_channels
        lines += [
            f"model.conv1 = torch.nn.Conv2d(3, {width}, 3, padding=1, bias=False)  # for small images",
            "model.maxpool = torch.nn.Identity()",
        ]
    note = "  # the classifier was not trained"
    for module in classifier_modules(built):
        lines.append(f"model.{_attribute(module)} = torch.nn.Identity(){note}")
        note = ""
    return lines


def _attribute(dotted: str) -> str:
    """`classifier.1` → `classifier[1]`."""
    first, *others = dotted.split(".")
    return first + "".join(f"[{name}]" if name.isdigit() else f".{name}" for name in others)


def onnx_snippet(path: Path, image_size: int) -> str:
    """Code that makes `model`, from images float32 [B, 3, S, S] to features float32 [B, D]."""
    size = f"3, {image_size}, {image_size}"
    return "\n".join(
        [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({str(path)!r})",
            f"def model(images):  # NumPy, float32 [B, {size}]",
            '    return session.run(["features"], {"images": images})[0]',
        ]
    )


def features_snippet(to: str, path: Path, split: str) -> str:
    """Code that reads features, file names and labels from an exported file or folder."""
    images = [
        f'with open({str(path / "images.csv")!r}, newline="", errors="surrogateescape") as file:',
        "    images = list(csv.DictReader(file))  # row, path, split, label, class",
    ]
    if to == "npy":
        return "\n".join(
            [
                "import csv",
                "import numpy as np",
                f'features = np.load({str(path / "features.npy")!r}, mmap_mode="r")',
                f"labels = np.load({str(path / 'labels.npy')!r})",
                *images,
                'paths = [image["path"] for image in images]',
            ]
        )
    if to == "faiss":
        return "\n".join(
            [
                "import csv",
                "import faiss",
                f"index = faiss.read_index({str(path / 'index.faiss')!r})",
                *images,
                "queries = index.reconstruct_n(0, 3)  # others: float32, scaled to length 1",
                "similarities, rows = index.search(queries, 10)",
                'paths = [[images[row]["path"] for row in found if row >= 0] for found in rows]',
            ]
        )
    if to == "parquet":
        return "\n".join(
            [
                "import pyarrow.parquet",
                f"table = pyarrow.parquet.read_table({str(path)!r})",
                'values = table["embedding"].combine_chunks().flatten().to_numpy()',
                "features = values.reshape(len(table), -1)",
                'labels = table["label"].to_numpy()',
                'paths, splits = table["path"].to_pylist(), table["split"].to_pylist()',
            ]
        )
    return "\n".join(
        [
            "import h5py",
            f"with h5py.File({str(path)!r}) as file:",
            '    class_names = file["class_names"].asstr()[:]',
            f"    features = file[{f'{split}/features'!r}][:]",
            f"    labels = file[{f'{split}/labels'!r}][:]",
            f'    paths = file[{f"{split}/paths"!r}].asstr("utf-8", "surrogateescape")[:]',
        ]
    )


def representations_snippet(representations: Representations, names: Path) -> str:
    """Code that reads cached representations; `names`: the CSV of their data set."""
    dataset, split = names.parent.name, names.stem
    others = "" if dataset == representations.content.dataset else f", dataset={dataset!r}"
    others += "" if split == representations.content.split else f", split={split!r}"
    return "\n".join(
        [
            "import rela",
            f"features = rela.open_representations({str(representations.path.resolve())!r}{others})",
            "for path, vector in features.items():",
            "    print(path, vector)",
        ]
    )


def pasteable(title: str, snippet: str) -> str:
    """A snippet under its title, not indented, ready to paste."""
    return f"{title}\n\n{snippet}\n"
