"""Features as a PyTorch data set: the same items in worker processes that start from nothing (spawn)."""

import pickle

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rela.representations.named import NamedRepresentations


def some_features(crops: int = 0) -> NamedRepresentations:
    array = np.random.default_rng(0).normal(size=(6 * max(crops, 1), 5)).astype(np.float16)
    paths, labels = [f"{i}.png" for i in range(6)], np.array([0, 1, 0, 1, -1, 0])
    return NamedRepresentations(array, paths, labels, ["a", "b"], {"prior": "resnet18"}, crops)


def test_a_data_set_survives_pickling():
    for crops in (0, 2):
        dataset = some_features(crops).torch_dataset()
        found = pickle.loads(pickle.dumps(dataset))
        assert isinstance(found, Dataset)
        assert len(found) == 6
        for i in range(6):
            assert torch.equal(found[i][0], dataset[i][0])
            assert found[i][1] == dataset[i][1]


def test_spawned_workers_load_batches():
    features = some_features()
    loader = DataLoader(
        features.torch_dataset(), batch_size=4, num_workers=1, multiprocessing_context="spawn"
    )
    vectors, labels = zip(*loader, strict=True)
    assert np.array_equal(torch.cat(vectors).numpy(), features.array.astype(np.float32))
    assert torch.cat(labels).tolist() == features.labels.tolist()
