"""Names inside the directory of a training run."""

BACKBONE_FILE = "backbone.safetensors"  # the trained weights
IDENTITY_FILE = "backbone.json"  # what they are, for the run's next life as a prior
METRICS_FILE = "metrics.jsonl"  # one record per epoch
PROGRESS_FILE = "progress.json"  # where it stands, while it runs
SECONDS_FILE = "seconds.json"  # the ledger so far, interrupted attempts included
CHECKPOINTS_DIR = "checkpoints"
