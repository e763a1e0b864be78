"""Fine-tune an exported backbone as a classifier, with PyTorch and torchvision or timm; needs no rela.

    rela export --to torchvision --output backbone.pth
    python finetune.py backbone.pth path/to/images --model resnet18 --image-size 224

    rela export --to timm --output backbone.safetensors      # a model of timm
    python finetune.py backbone.safetensors path/to/images --model timm:test_resnet --image-size 32

`path/to/images` has train/ and val/ with one folder per class. `rela status` shows the run's model.
"""

import argparse
import os
import sys
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("weights", help="from rela export --to torchvision or --to timm")
parser.add_argument("images", help="folder with train/ and val/")
parser.add_argument(
    "--model", default="resnet18", help="the run's: a torchvision name or timm:NAME"
)
parser.add_argument("--image-size", type=int, default=224, help="the run's --image-size, in pixels")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--lr", type=float, default=1e-3, help="a tenth of it for the backbone")
parser.add_argument(
    "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that load images"
)
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"


def build(name: str, num_classes: int) -> torch.nn.Module:
    """The model with a new classifier."""
    if name.startswith("timm:"):
        import timm

        made: torch.nn.Module = timm.create_model(name[5:], num_classes=num_classes)
        return made
    if name not in models.list_models():
        sys.exit(
            f"--model {name}: torchvision has no such model; write timm:{name} for one of timm"
        )
    return models.get_model(name, weights=None, num_classes=num_classes)


def load(path: str) -> dict[str, Any]:
    """The weights by their names."""
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
size = args.image_size
views = [transforms.RandomResizedCrop(size, (0.5, 1)), transforms.RandomHorizontalFlip()]
whole = [transforms.Resize(size if size <= 64 else size * 8 // 7), transforms.CenterCrop(size)]
end = [transforms.ToTensor(), normalize]
train = ImageFolder(f"{args.images}/train", transforms.Compose(views + end))
val = ImageFolder(f"{args.images}/val", transforms.Compose(whole + end))
model = build(args.model, len(train.classes))
try:
    missing, unexpected = model.load_state_dict(load(args.weights), strict=False)
except RuntimeError:  # tensors of other shapes
    missing, unexpected = [], [args.weights]
if unexpected or len(missing) > 4:  # more than a classifier
    sys.exit(
        f"{args.weights} does not hold the weights of {args.model}; give the --model of the run"
    )
new = [weight for name, weight in model.named_parameters() if name in missing]  # the classifier
old = [weight for name, weight in model.named_parameters() if name not in missing]
optimizer = torch.optim.AdamW([{"params": new}, {"params": old, "lr": args.lr / 10}], lr=args.lr)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
model.to(device)
shorter = len(train) > args.batch_size  # without the last images of an epoch
loader = DataLoader(train, args.batch_size, True, num_workers=args.workers, drop_last=shorter)
for epoch in range(1, args.epochs + 1):
    model.train()
    for images, labels in loader:
        loss = cross_entropy(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    model.eval()
    with torch.no_grad():
        right = [
            model(x.to(device)).argmax(1).cpu() == y for x, y in DataLoader(val, args.batch_size)
        ]
    print(f"epoch {epoch}: accuracy {100 * torch.cat(right).float().mean():.1f} %")
