"""Speed, side by side with what a user would otherwise run. One file per question, listed here."""

# name → what it measures; the module of that name has run(rounds, scratch) -> list of results.
BENCHMARKS = {
    "loading": "two augmented views per image: JPEG and raw at 224 px, raw at 32 px",
    "loading_peers": "the same against Albumentations, SPDL, DALI, by CPU seconds",
    "data_wait": "share of a training step spent waiting for batches",
    "embedding": "rela embed: images per second against the forward pass alone",
    "engines": "engines and precisions of rela embed on a CPU against eager float32",
    "embedding_peers": "rela embed end to end against lightly_train.embed and timm, DataLoader, h5py",
    "stage1": "a step on cached targets against a step with the prior in it; fetching targets",
    "stage1_peer": "an epoch of stage 1 against LightlyTrain's distillation",
    "precision": "steps of both stages on a CPU: float32 as torch has it, rela's float32, bfloat16",
    "stage2": "a BYOL step against the plain module",
    "converting": "rela convert against FFCV's own writer",
    "startup": "time to the first batch; a cache hit; --help",
    "projection": "PCA of cached representations: time and exactness",
    "evaluation": "k-NN and the linear probe against scikit-learn; with a GPU, minutes for ImageNet",
    "memory": "the largest resident set of embedding and of PCA as rows grow",
    "growth": "seconds per image as the data set grows",
    "gpu": "on a GPU: embedding, both stages, ImageNet-sized extrapolation",
}
