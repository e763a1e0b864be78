"""DINO: Emerging Properties in Self-Supervised Vision Transformers (Caron et al., 2021, arXiv 2104.14294)."""

import warnings

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.utils.scheduler import cosine_schedule, linear_warmup_schedule
from torch import Tensor, nn

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.method import MethodOptions, MomentumMethod, Progress, momentum_copy
from rela.methods.parts.multi_crop import check_local_crops, local_size, multi_crop_features

_HIDDEN_DIM, _BOTTLENECK_DIM = 2048, 256
_NUM_PROTOTYPES = {"rela": 2048, "reference": 2048, "paper": 65_536}
_NUM_LOCAL_CROPS = {"rela": 0, "reference": 0, "paper": 8}
_FROZEN_EPOCHS = {"rela": 0, "reference": 0, "paper": 1}
_TEMPERATURE, _LAST_TEMPERATURE = 0.04, 0.07
_TEMPERATURE_WARMUP_EPOCHS, _LARGEST_WARMUP_SHARE = 30, 0.3
_DECAY_GROWTH = 10  # from 0.04 to 0.4


class DINO(MomentumMethod):
    """A student predicts from every crop the prototypes that its moving average assigns to full views.

    The hyperparameters:

    - "reference" (ReLA's): head F → 2048 → 256 with batch norm, then cosines with 2,048 prototypes; the
      teacher's head starts from its own random weights; no local crops, constant momentum 0.99 and teacher
      temperature 0.04; the student is the result;
    - "rela": the same, but the teacher's head starts as the student's, and the teacher is the result;
    - "paper" (for a ViT-S): head F → 2048 → 2048 → 256 without batch norm, 65,536 prototypes; the teacher's
      head starts as the student's; the teacher is the result; 8 local crops, momentum from 0.996 to 1,
      weight decay from 0.04 to 0.4, teacher temperature from 0.04 to 0.07 within 30 epochs or 30 % of
      stage 2 (as in 100 epochs), last layer frozen for one epoch; AdamW, gradients clipped at a global
      norm of 3 (per tensor in the authors' code). For a ResNet the authors prefer --optimizer sgd --lr 0.03
      × batch size / 256 --weight-decay 1e-4 and crops split at 0.14 of the area; AdamW is kept for every
      model, since only its decay has a published course.

    All schedules except the learning rate's start at the hand-over.
    """

    recipes = published.DINO
    rela_anchor = 15.0
    has_local_crops = True
    projector: DINOProjectionHead

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        kind, chosen = options.hyperparameters, options.local_crops
        self.num_local_crops = _NUM_LOCAL_CROPS[kind] if chosen is None else chosen
        if self.num_local_crops:
            check_local_crops(backbone, options.image_size)
        self.projector = _head(options)
        self.momentum_backbone = momentum_copy(backbone)
        self.momentum_projector = _head(options)  # weight norm cannot be deep-copied
        if kind != "reference":
            self.momentum_projector.load_state_dict(self.projector.state_dict())
        self.momentum_projector.requires_grad_(False)
        self.criterion = DINOLoss(_NUM_PROTOTYPES[kind], teacher_temp=_TEMPERATURE)

    @property
    def exported(self) -> nn.Module:
        """The teacher, which is better all through the training (figure 6); the reference's student."""
        reference = self.options.hyperparameters == "reference"
        return self.backbone if reference else self.momentum_backbone

    def update_momentum(self, progress: Progress | None) -> None:
        """Move the teacher; in stage 1 it sees no images, so that its norms take the student's statistics."""
        super().update_momentum(progress)
        if progress is None:
            pairs = zip(self.momentum_backbone.buffers(), self.backbone.buffers(), strict=True)
            for teacher, student in pairs:
                teacher.copy_(student)

    def views(self) -> tuple[View, ...]:
        """Two different full-sized views, then the local crops; without blur for small images."""
        size = self.options.image_size
        blur = not is_small(size)
        full = View(size, scale=(0.4, 1.0), blur_probability=1.0 if blur else 0.0)
        other = View(
            size,
            scale=(0.4, 1.0),
            blur_probability=0.1 if blur else 0.0,
            solarize_probability=0.2,
        )
        local = View(local_size(size), scale=(0.05, 0.4), blur_probability=0.5 if blur else 0.0)
        return full, other, *[local] * self.num_local_crops

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Mean cross-entropy over pairs of a teacher's view and another crop (equation 3)."""
        features = multi_crop_features(self.backbone, views)
        outputs = [self.projector(f).float() for f in features]
        student = [crop for several in outputs for crop in several.split(len(views[0]))]
        with torch.no_grad():
            teacher = [
                self.momentum_projector(self.momentum_backbone(view)).float() for view in views[:2]
            ]
        with torch.autocast(student[0].device.type, enabled=False):
            loss = self.criterion(teacher, student, teacher_temp=self.teacher_temperature(progress))
        return loss, features[:2]

    def teacher_temperature(self, progress: Progress) -> float:
        """Constant; in the paper, a linear rise at the beginning of stage 2."""
        if self.options.hyperparameters != "paper":
            return _TEMPERATURE
        warmup_steps = min(
            _TEMPERATURE_WARMUP_EPOCHS * progress.steps_per_epoch,
            round(_LARGEST_WARMUP_SHARE * progress.num_steps),
        )
        return float(
            linear_warmup_schedule(progress.step, warmup_steps, _TEMPERATURE, _LAST_TEMPERATURE)
        )

    def before_step(self, progress: Progress) -> None:
        """Freeze the last layer in the first epoch of stage 2 (paper)."""
        self.projector.cancel_last_layer_gradients(progress.epoch)

    def weight_decay(self, base: float, progress: Progress) -> float:
        """Constant; in the paper, a half cosine from `base` to 10 · `base`."""
        if self.options.hyperparameters != "paper":
            return base
        return float(cosine_schedule(progress.step, progress.num_steps, base, _DECAY_GROWTH * base))


def _head(options: MethodOptions) -> DINOProjectionHead:
    kind = options.hyperparameters
    with warnings.catch_warnings():  # lightly uses an older name of weight norm
        warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated")
        head = DINOProjectionHead(
            options.feature_dim,
            _HIDDEN_DIM,
            _BOTTLENECK_DIM,
            _NUM_PROTOTYPES[kind],
            batch_norm=kind != "paper",
            freeze_last_layer=_FROZEN_EPOCHS[kind],
        )
    if kind != "paper":
        del head.layers[3:6]  # the second hidden layer, its norm and its activation
    return head
