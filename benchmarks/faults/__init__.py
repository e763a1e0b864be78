"""What is promised when things break, tried by breaking them. One file per kind of fault, listed here.

A campaign runs `run(trials, scratch) -> list[Tally]`; `trials` of 0 stands for its own number. Those of
BY_STAGE also take the stages to try.
"""

import os

# before numpy and torch are there: threads of forked jobs would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

CAMPAIGNS = {
    "kill": "kill -9 at random instants of every stage, then run it again",
    "resume": "training killed at each of 100 steps",
    "world_size": "training stopped and gone on with on 2, 1, 2 processes",
    "storage": "full disks and I/O errors at any write",
    "concurrency": "four jobs on one key, one of them killed",
    "integrity": "one bit flipped anywhere in what is kept",
    "images": "damaged images and odd folders",
    "files": "hostile weights, HDF5 files, manifests, configurations, recipes",
    "hangs": "workers and ranks that die, stop or lose their network",
}

STAGES = ("convert", "embed", "targets", "train", "eval")
BY_STAGE = ("kill", "storage", "concurrency")
