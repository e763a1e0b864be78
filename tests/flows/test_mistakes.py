"""Common mistakes: exit status, and a message that names the next step.

One workspace with two data sets, `pictures` with labels and `flat` without; nothing in the table changes it.
Further failures, which need something broken first, are in test_errors.
"""

import shlex
import shutil
from pathlib import Path

import pytest
from command_line import run_rela
from pictures import save_tree

SMALL = "--model shufflenet_v2_x0_5 --image-size 32 --batch-size 8 --epochs 1"
RANDOM = "random:shufflenet_v2_x0_5"
EMBED = f"train pictures --prior {RANDOM} --embed"  # refused before anything is embedded
MISTAKES = [
    # commands and options
    ("trian", 2, ["No such command 'trian'", "train"]),
    ("--wrkspace x status", 2, ["--wrkspace", "--workspace"]),
    ("convert", 2, ["Missing argument 'SRC'"]),
    ("embed pictures", 2, ["Missing option '--prior'"]),
    ("train pictures --prior none --lr fast", 2, ["--lr fast: expected a number of more than 0"]),
    ("train pictures --prior none --lr -1", 2, ["--lr -1: expected a number of more than 0"]),
    ("train pictures --prior none --epochs 0", 2, ["--epochs 0: expected a number of at least 1"]),
    ("train pictures --prior none --method byol2", 2, ["--method byol2: expected one of byol, "]),
    ("train pictures --prior none --precision fp16", 2, ["expected one of", "16-mixed"]),
    ("train --preset imagenet", 2, ["'imagenet1k'"]),
    ("convert folder --val-fraction 1.5", 2, ["--val-fraction 1.5: expected", "at most 0.9"]),
    ("eval --prior resnet18 --protocol knn", 2, ["--protocol knn: expected one of knn20"]),
    ("report --projection tsne", 2, ["--projection tsne: expected one of pca, umap"]),
    ("cache rm", 2, ["No such command 'rm'"]),
    ("run odd.toml --set x", 2, ["expected NAME=VALUE"]),
    ("--workspace notes.txt status", 2, ["'notes.txt' is a file"]),
    ("status --workspace elsewhere", 2, ["rela --workspace DIRECTORY status"]),
    ("train --resume second", 2, ["--name second"]),
    ("status --interval 5", 2, ["--interval requires --watch"]),
    ("train --handover 1.5", 2, ["--handover 1.5: expected a number of at least 0 and at most 1"]),
    ("train --resume --epochs 3", 2, ["--epochs", "extends a finished run"]),
    ("eval --weights x.pt", 2, ["--prior", "--weights"]),
    ("eval some --prior resnet18", 2, ["not both"]),
    # sources
    ("convert damaged", 65, ["`rela convert damaged --on-bad-image skip`", "a/0.png: empty file"]),
    ("embed damaged --prior resnet18", 65, ["`rela convert damaged --on-bad-image skip`", "a/0.png"]),
    ("convert https://example.org/images.tar", 65, ["is a URL", "download"]),
    ("convert pictures --format csv", 65, ["pictures: found a folder, expected a CSV"]),
    ("convert pictures --image-column x", 2, ["--image-column does not apply to pictures (", "--format"]),
    ("convert pictures", 2, ["`rela convert pictures --val-fraction 0`", "--name pictures-val`"]),
    ("convert folder/nothing", 65, ["folder/nothing", "found nothing"]),
    ("convert one.png", 65, ["one.png", "rela convert ."]),
    ("convert archive.zip", 65, ["archive.zip is damaged, or not a zip"]),
    ("convert flat --name pictures", 2, ["other images", "--name"]),
    ("convert flat --name 'my images'", 2, ["'my images'", "letters, digits"]),
    # data sets, runs and recipes that are not there
    ("embed picture --prior resnet18", 2, ["'picture'", "flat, pictures"]),
    ("train ./pictures --prior none", 2, ["a name is expected, not a path", "flat, pictures"]),
    ("train folder --prior none", 2, ["no data set 'folder'", "`rela convert folder`"]),
    ("embed --prior resnet18", 2, ["2 data sets", "name one of flat, pictures"]),
    ("train pictures", 2, ["rela embed pictures --prior resnet18", "--prior none"]),
    (f"train pictures --prior {RANDOM} {SMALL}", 2, [f"rela embed pictures --prior {RANDOM}", "--embed"]),
    ("eval --dataset pictures --prior random:resnet18", 2, ["--val-fraction"]),
    ("train --resume", 2, ["nothing to resume"]),
    ("train --resume --name first", 2, ["no interrupted run 'first'"]),
    ("eval", 2, ["no finished run", "rela train"]),
    ("eval first", 2, ["no finished run 'first'", "rela train"]),
    ("report", 2, ["no finished run", "rela train"]),
    ("priors rank flat", 2, ["rela embed flat --prior resnet18"]),
    ("cache verify first", 2, ["nothing called first", "rela cache ls"]),
    ("run nothing.toml", 74, ["nothing.toml", "`rela run small --set images="]),
    ("run broken.toml", 2, ["broken.toml is not TOML", "line 1"]),
    ("run odd.toml", 2, ["unknown key 'learning_rate'", "lr"]),
    # priors and weights
    ("embed pictures --prior resnet-18", 2, ["did you mean resnet18"]),
    ("embed pictures --prior ResNet18", 2, ["did you mean resnet18"]),
    ("embed pictures --prior timm:resnet999", 2, ["did you mean timm:resnet"]),
    ("embed pictures --prior clip:ViT-Z", 2, ["did you mean clip:ViT"]),
    ("embed pictures --prior none", 2, ["--prior none is for `rela train`", "random:resnet18"]),
    ("embed pictures --prior random", 2, ["--prior random is for `rela train`", "random:resnet18"]),
    ("eval --dataset pictures --prior none", 2, ["--val-fraction 0.1 and another --name"]),
    ("eval --prior resnet18 --prior resnet50", 2, ["one prior at a time", "resnet18, resnet50"]),
    ("embed pictures --prior ''", 2, ["--prior '' is incomplete", "resnet18"]),
    ("embed pictures --prior file:", 2, ["--prior file: is incomplete", "file:weights.pth"]),
    ("embed pictures --prior random:", 2, ["--prior random: is incomplete", "random:resnet18"]),
    ("embed pictures --prior resnet18,resnet50", 2, ["--prior resnet18 --prior resnet50"]),
    ("embed pictures --prior ./junk.pt", 2, ["is a path", "file:./junk.pt --arch"]),
    ("embed pictures --prior workspace/runs/mine", 2, ["a run by its name: --prior mine"]),
    ("embed pictures --prior file:folder --arch resnet18", 74, ["folder is a folder", "weights file"]),
    ("neighbors one.png --dataset flat --prior a+b", 2, ["rela embed flat --prior a --prior b"]),
    ("embed pictures --prior resnet18 --weights nowhere.pt", 74, ["no such weights file"]),
    ("embed pictures --prior resnet18 --weights junk.pt", 65, ["not a file of torch.save", "state dict"]),
    ("embed pictures --prior file:junk.pt", 2, ["--arch", "resnet18_small"]),
    ("embed pictures --prior random:resnet18 --shard 4/4", 2, ["0 to N - 1"]),
    ("embed pictures --prior random:resnet18 --device gpu", 2, ["auto, cpu, cuda or cuda:N"]),
    ("embed pictures --prior random:resnet18 --seed -1", 2, ["--seed -1: expected a number of at least 0"]),
    # settings that do not fit
    (f"train pictures --prior none {SMALL} --warmup-epochs 5", 2, ["--warmup-epochs 5", "--epochs 1"]),
    (f"train pictures --prior none {SMALL} --batch-size 1000", 2, ["24 images", "lower --batch-size"]),
    ("train pictures --prior none --model resnet50x", 2, ["did you mean resnet50"]),
    (f"train pictures --prior none --name a/b {SMALL}", 2, ["'a/b'", "letters, digits"]),
    (f"train pictures --prior none --name ../x {SMALL}", 2, ["letters, digits"]),
    (f"train pictures --prior none --name resnet18 {SMALL}", 2, ["hide the prior"]),
    (f"{EMBED} --method simclr --ema cosine", 2, ["--method simclr does not use --ema"]),
    (f"{EMBED} --model resnet19", 2, ["no model 'resnet19'"]),
    (f"{EMBED} --model inception_v3 --image-size 16", 2, ["cannot take images of 16×16"]),
    (f"{EMBED} --optimizer lars", 2, ["--optimizer lars requires --lr"]),
    (f"{EMBED} --method none --handover 0.5", 2, ["--method none is stage 1 only"]),
    (f"train flat --prior none --method supervised {SMALL}", 2, ["requires labels", "class folders"]),
    (f"train pictures --prior none --devices 7,8 {SMALL}", 2, ["--devices 7,8", "auto, a number"]),
    ("eval --dataset flat --prior random:resnet18", 2, ["flat has no labels"]),
    ("eval --prior random:resnet18 --protocol segmentation", 2, ["--voc PATH", "Pascal VOC"]),
    ("eval --prior random:resnet18 --protocol segmentation --voc folder", 2,
     ["folder/ImageSets/Segmentation is missing"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mistakes")
    for path in ("pictures/{0}/{1}.png", "flat/{1}.png"):
        save_tree(root, {path.format("abc"[i % 3], i): (16, 16) for i in range(24)})
    shutil.copytree(root / "pictures", root / "damaged")
    (root / "damaged/a/0.png").write_bytes(b"")
    (root / "folder").mkdir()
    (root / "workspace/runs/mine").mkdir(parents=True)
    (root / "one.png").write_bytes((root / "flat/0.png").read_bytes())
    (root / "archive.zip").write_bytes(b"PK\3\4 and no more")
    (root / "notes.txt").write_text("buy milk")
    (root / "junk.pt").write_bytes(b"junk")
    (root / "broken.toml").write_text("[[train]\n")
    (root / "odd.toml").write_text("[[train]]\nlearning_rate = 1\n")
    for name in ("pictures", "flat"):
        run_rela("--workspace", root / "workspace", "convert", root / name, "--val-fraction", 0)
    return root


def listing(root: Path) -> list[str]:
    """Every artifact there is."""
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("manifest.json"))


@pytest.mark.parametrize(("line", "status", "words"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes_name_the_next_step(
    place: Path, monkeypatch: pytest.MonkeyPatch, line: str, status: int, words: list[str]
):
    monkeypatch.chdir(place)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    before = listing(place)
    result = run_rela(*shlex.split(line), exit_code=status)
    said = result.stderr.strip().splitlines()
    assert result.stdout == ""
    [first] = [i for i, line in enumerate(said) if line.startswith(("rela: ", "Error: "))]
    assert all(line.startswith("  ") for line in said[first + 1 :])  # a list, if there is one
    for word in words:
        assert word in "\n".join(said[first:])
    assert listing(place) == before
