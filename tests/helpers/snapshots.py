"""Where a training stands, at some moment."""

from rela.training.progress import Snapshot

NOW = Snapshot(
    stage=1, epoch=11, epochs=100, epoch_share=0.45, step=1000, num_steps=20_000, loss=0.53123,
    rho=0.98123, online_accuracy=0.341, images_per_second=1234.0, data_wait_share=0.012,
    eta_seconds=3753.0, eta_is_least=True,
)  # fmt: skip
