"""Embed shards on a Ray cluster, without a shared file system: a task for each shard, features in a store.

    pip install 'rela[cloud,ray]'
    python examples/embed_with_ray.py 's3://bucket/train-{000..146}.tar' s3://bucket/features --prior resnet50

Run it again after a failure: shards whose features are in the store are left out. Every shard becomes a
NAME.h5 and a NAME.csv with the names of its rows.
"""

import argparse
import tempfile

import fsspec
import ray

import rela
from rela.sources.remote import list_shards


@ray.remote(max_retries=3)
def embed(shard: str, output: str, prior: str, image_size: int | None) -> str:
    """Embed one shard in a workspace of its own, and copy the features to `output`.h5 and `output`.csv."""
    with tempfile.TemporaryDirectory() as workspace:
        made = rela.embed(shard, prior=prior, image_size=image_size, workspace=workspace).artifact
        for suffix in (".h5", ".csv"):  # the .csv is last: where it is, the shard is done
            fs, path = fsspec.core.url_to_fs(output + suffix)
            [file] = made.path.glob(f"*{suffix}")
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), path)
    return f"{shard}: {made.content.shape[0]:,} images"


def main() -> None:
    """A task for each shard without features; a line for each that ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", help="URL of .tar or .parquet files, such as s3://bucket/*.tar")
    parser.add_argument("output", help="URL of the folder for the features")
    parser.add_argument("--prior", required=True)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a task, such as 1 or 0.5")
    given = parser.parse_args()
    shards = list_shards(given.shards)
    tasks = []
    for shard in shards.shards:
        output = f"{given.output.rstrip('/')}/{shard.name.rpartition('.')[0]}"
        fs, path = fsspec.core.url_to_fs(f"{output}.csv")
        if not fs.exists(path):
            task = embed.options(num_gpus=given.gpus)
            tasks.append(task.remote(shards.url_of(shard), output, given.prior, given.image_size))
    while tasks:
        [done], tasks = ray.wait(tasks)
        print(ray.get(done))


if __name__ == "__main__":
    main()
