"""Common mistakes: exit status, and a message that names the next step.

One workspace with three data sets, `pictures` with labels, `one` with one class and `flat`
without; nothing in the table changes it.
Further failures, which need something broken first, are in test_errors.
"""

import shutil
from pathlib import Path

import pytest
from command_line import run_rela
from pictures import save_tree
from refusals import assert_refused

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
    ("train pictures --prior none --epochs 0", 2, ["--epochs 0: expected an integer of at least 1"]),
    ("train pictures --prior none --method byol2", 2, ["--method byol2: expected one of byol, "]),
    ("train pictures --prior none --precision fp16", 2, ["expected one of", "16-mixed"]),
    ("train --preset imagenet", 2, ["'imagenet1k'"]),
    ("convert folder --val-fraction 1.5", 2, ["--val-fraction 1.5: expected", "at most 0.9"]),
    ("eval --prior resnet18 --protocol knn", 2, ["--protocol knn: expected one of knn20"]),
    ("report --projection tsne", 2, ["--projection tsne: expected one of pca, umap"]),
    ("train pictures --prior none --epochs 1.5", 2, ["--epochs 1.5: expected an integer of at least 1"]),
    ("train pictures --prior none --batch-size 1e3", 2, ["an integer of at least 2; did you mean 1000?"]),
    ("train pictures --prior none --image-size 224x224", 2, ["did you mean 224?"]),
    ("train pictures --prior none --seed 0,1,2", 2, ["an integer of at least 0; one value at a time"]),
    ("train pictures --prior none --lr 1e-3,1e-4", 2, ["one value at a time; recipes sweep"]),
    ("train pictures --prior none --data-ratio 50%", 2, ["more than 0 and at most 1; 50 % is 0.5"]),
    ("train pictures --handover 50", 2, ["at least 0 and at most 1; 50 % is 0.5"]),
    ("train pictures --prior none --method BYOL", 2, ["did you mean byol?"]),
    ("train pictures --prior none --model ''", 2, ["--model is empty; give a value, or leave it out"]),
    ("train pictures --prior none --logger tensorbord", 2, ["expected some of tensorboard, wandb"]),
    ("train pictures --prior none --gpus 1", 2, ["no option --gpus; did you mean --devices?"]),
    ("train pictures --prior none --device cuda", 2, ["did you mean --devices?"]),
    ("train --dataset pictures", 2, ["no option --dataset: DATASET is given by itself, as in rela train"]),
    ("train pictures flat --prior none", 2, ["unexpected flat: train takes [DATASET]", "once for each"]),
    ("train pictures none", 2, ["unexpected none", "options, which begin with --"]),
    ("eval --run some", 2, ["no option --run: RUN is given by itself, as in rela eval RUN"]),
    ("eval --prior resnet18 --protocol knn20,linear", 2, ["--protocol knn20 --protocol linear"]),
    ("eval --device gpu --prior resnet18 --image-size 0", 2, ["an integer of at least 1"]),
    ("embed pictures --model resnet18", 2, ["no option --model; did you mean --prior?"]),
    ("export --format timm", 2, ["no option --format; did you mean --to?"]),
    ("export some timm", 2, ["unexpected timm: export takes [RUN]"]),
    ("convert a.png b.png c.png d.png e.png f.png", 2, ["6 sources make one data set", "--name"]),
    ("convert pictures --overwrite", 2, ["no option --overwrite; did you mean --replace?"]),
    ("convert ''", 2, ["SRC is empty; give a value"]),
    ("convert pictures --name ''", 2, ["--name is empty"]),
    ("--workspace '' status", 2, ["--workspace is empty"]),
    ("status pictures flat", 2, ["unexpected flat: status takes [DATASET]"]),
    ("cache gc --unused-days 30d", 2, ["'30d' is not a valid number"]),
    ("completion", 2, ["'SHELL'", "one of bash, zsh, fish"]),
    ("help", 2, ["no command help; write rela --help"]),
    ("cache rm", 2, ["No such command 'rm'"]),
    ("run odd.toml --set x", 2, ["expected NAME=VALUE"]),
    ("--workspace notes.txt status", 2, ["'notes.txt' is a file"]),
    ("status --workspace notes.txt", 2, ["'notes.txt' is a file"]),
    ("status --workspace ''", 2, ["--workspace is empty"]),
    ("--workspace a status --workspace b", 2, ["--workspace is given twice, as a and b; give one"]),
    ("--workspace a cache --workspace b ls", 2, ["--workspace is given twice, as a and b; give one"]),
    ("status --workspace a --workspace b", 2, ["--workspace is given twice, as a and b; give one"]),
    ("train --resume second", 2, ["--name second"]),
    ("status --interval 5", 2, ["--interval requires --watch"]),
    ("train --handover 1.5", 2, ["--handover 1.5: expected a number of at least 0 and at most 1"]),
    ("train --resume --epochs 3", 2, ["--epochs", "extends a finished run"]),
    ("eval --weights x.pt", 2, ["--prior", "--weights"]),
    ("eval some --prior resnet18", 2, ["not both"]),
    # sources
    ("convert damaged", 65, ["`rela convert damaged --on-bad-image skip`", "a/0.png: empty file"]),
    ("embed damaged --prior resnet18", 65, ["`rela convert damaged --on-bad-image skip`", "a/0.png"]),
    ("convert https://127.0.0.1:9/images.tar", 74, ["cannot read https://127.0.0.1:9/", "run the same"]),
    ("convert pictures --format csv", 65, ["pictures: found a folder, expected a CSV"]),
    ("convert pictures --image-column x", 2, ["--image-column does not apply to pictures (", "--format"]),
    ("convert pictures", 2, ["`rela convert pictures --val-fraction 0`", "--name pictures-val`"]),
    ("convert workspace", 2, ["is in the workspace", "`rela cache ls`"]),
    ("convert workspace/datasets/pictures", 2, ["the data set is called pictures"]),
    ("convert workspace/datasets/pictures/train.csv", 2, ["the data set is called pictures"]),
    ("embed workspace/datasets/flat/train.beton --prior resnet18", 2, ["the data set is called flat"]),
    ("convert folder/nothing", 65, ["folder/nothing", "found nothing"]),
    ("convert one.png", 65, ["one.png", "rela convert ."]),
    ("convert archive.zip", 65, ["archive.zip is damaged, or not a zip"]),
    ("convert flat --name pictures", 2, ["other images", "--name"]),
    ("convert flat --name 'my images'", 2, ["'my images'", "letters, digits"]),
    # data sets, runs and recipes that are not there
    ("embed picture --prior resnet18", 2, ["'picture'", "flat, one, pictures", "mean pictures?"]),
    ("train ./pictures --prior none", 2, ["a name is expected, not a path", "flat, one, pictures"]),
    ("train folder --prior none", 2, ["no data set 'folder'", "`rela convert folder`"]),
    ("train pictures/ --prior none", 2, ["a name is expected, not a path", "did you mean pictures?"]),
    ("train Pictures --prior none", 2, ["did you mean pictures?"]),
    ("train workspace/datasets/pictures/train.beton --prior none", 2, ["did you mean pictures?"]),
    ("train pictures.beton --prior none", 2, ["did you mean pictures?"]),
    ("eval pictures", 2, ["no finished run 'pictures'", "pictures is a data set"]),
    ("eval --prior resnet18", 2, ["name one of flat, one, pictures with --dataset"]),
    ("rm datasets/pictures", 2, ["nothing called datasets/pictures", "mean pictures?"]),
    ("rm Flat", 2, ["did you mean flat?"]),
    ("embed --prior resnet18", 2, ["3 data sets", "name one of flat, one, pictures"]),
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
    ("eval --dataset pictures --prior none", 2, ["--val-fraction 0.1 --name pictures-val`"]),
    ("eval --prior resnet18 --prior resnet50", 2, ["one prior at a time", "resnet18, resnet50"]),
    ("embed pictures --prior ''", 2, ["--prior '' is incomplete", "resnet18"]),
    ("embed pictures --prior file:", 2, ["--prior file: is incomplete", "file:weights.pth"]),
    ("embed pictures --prior random:", 2, ["--prior random: is incomplete", "random:resnet18"]),
    ("embed pictures --prior resnet18,resnet50", 2, ["--prior resnet18 --prior resnet50"]),
    ("embed pictures --prior ./junk.pt", 2, ["is a path", "file:./junk.pt --arch"]),
    ("embed pictures --prior workspace/runs/mine", 2, ["a run by its name: --prior mine"]),
    ("embed pictures --prior file:folder --arch resnet18", 74, ["folder is a folder", "weights file"]),
    ("neighbors one.png --dataset flat --prior a+b", 2, ["no model 'a'"]),
    ("neighbors one.png --dataset flat --prior resnet18+resnet50", 2, ["--prior resnet18 --prior resnet50"]),
    ("neighbors", 2, ["expected one of IMAGE, --text, --duplicates, --outliers, found none"]),
    ("neighbors one.png --outliers", 2, ["found IMAGE and --outliers; for example `rela neighbors --dup"]),
    ("neighbors one.png --k 3", 2, ["--k requires --outliers, found IMAGE; remove it"]),
    ("neighbors --outliers --threshold 0.9", 2, ["--threshold requires --duplicates, found --outliers"]),
    ("neighbors --duplicates --threshold 95", 2, ["at least -1 and at most 1"]),
    ("neighbors --duplicates --dataset flat", 2, ["`rela embed flat --prior"]),
    ("neighbors --outliers --dataset flat --prior 'a@32px (2×2×8 maps)'", 2, ["names maps", "expected vec"]),
    ("train flat --prior 'a@32px (2×2×8 maps)'", 2, ["names maps, which `rela train --dense 1` finds"]),
    ("embed pictures --prior random:resnet18 --dense-width 3", 2, ["--dense-width requires --dense"]),
    ("embed pictures --prior random:resnet18 --layer qqq", 2, ["no such layer; the outermost are conv1"]),
    ("embed pictures --prior flat", 2, ["--prior flat is a data set; expected a model"]),
    ("train pictures --prior none --prior resnet18", 2, ["--prior none stands alone"]),
    ("neighbors one.png --dataset flat --prior none", 2, ["random:ARCH"]),
    ("neighbors one.png --dataset flat --prior resnet81", 2, ["no model 'resnet81'", "resnet18"]),
    ("embed pictures --prior random:resnet18 --mean 127", 2, ["--mean 127", "of pixels from 0 to 1"]),
    ("embed pictures --prior random:resnet18 --std 0", 2, ["--std 0", "one number, or three"]),
    ("embed pictures --prior random:resnet18 --device mps", 2, ["computes on cpu or cuda", "--device auto"]),
    ("embed pictures --prior random:vit_b_16 --image-size 100", 2, ["multiple of 16", "--image-size 96"]),
    ("embed pictures --prior random:timm:vit_tiny_patch16_224 --image-size 100", 2, ["--image-size 96"]),
    ("embed pictures --prior resnet18 --weights nowhere.pt", 74, ["no such weights file"]),
    ("embed pictures --prior resnet18 --weights junk.pt", 65, ["not a file of torch.save", "state dict"]),
    ("embed pictures --prior file:junk.pt", 2, ["--arch", "resnet18_small"]),
    ("embed pictures --prior random:resnet18 --shard 4/4", 2, ["0 to N - 1"]),
    ("embed pictures --prior random:resnet18 --device gpu", 2, ["auto, cpu, cuda or cuda:N"]),
    ("embed pictures --prior random:resnet18 --seed -1", 2, ["--seed -1: expected an integer of at least 0"]),
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
    (f"train pictures --prior none --devices 7,8 {SMALL}", 2, ["--devices 7,8", "auto, "]),
    (f"train pictures --prior none --devices gpu {SMALL}", 2, ["--devices gpu", "auto, "]),
    (f"train pictures --prior none --devices 0 {SMALL}", 2, ["--devices 0", "auto, "]),
    ("train pictures --prior none", 2, ["24 images do not fill one batch of 128; lower --batch-size to 24"]),
    ("train pictures --prior none --data-ratio 0.01", 2, ["0 of 24 images", "; raise --data-ratio"]),
    (f"train one --prior none --method supervised {SMALL}", 2, ["two classes or more", "has one: cat"]),
    ("eval --dataset flat --prior random:resnet18", 2, ["flat has no labels"]),
    ("eval --prior random:resnet18 --protocol segmentation", 2, ["--voc PATH", "Pascal VOC"]),
    ("eval --prior random:resnet18 --protocol segmentation --voc folder", 2,
     ["folder/ImageSets/Segmentation is missing"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mistakes")
    for path in ("pictures/{0}/{1}.png", "flat/{1}.png", "one/cat/{1}.png"):
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
    for name in ("pictures", "flat", "one"):
        run_rela("--workspace", root / "workspace", "convert", root / name, "--val-fraction", 0)
    return root


@pytest.mark.parametrize(("line", "status", "words"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes_name_the_next_step(
    place: Path, monkeypatch: pytest.MonkeyPatch, line: str, status: int, words: list[str]
):
    monkeypatch.chdir(place)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    assert_refused(place, line, status, words)


def test_the_folder_of_images_may_hold_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`cd images; rela convert .` twice: the contact sheet of the first is no image of the second."""
    save_tree(tmp_path, {f"{'ab'[i % 2]}/{i}.png": (16, 16) for i in range(8)})
    monkeypatch.chdir(tmp_path)
    for said in ("data set mine (2 classes) written", "already exists, unchanged"):
        assert said in run_rela("convert", ".", "--name", "mine").stdout
