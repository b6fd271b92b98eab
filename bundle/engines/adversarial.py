"""A stage whose network learns against a discriminator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.handlers import TensorBoardStatsHandler
from monai.optimizers import WarmupCosineSchedule

from bundle.engines.ranks import is_first
from bundle.engines.stage import Stage
from bundle.losses.adversarial import AdversarialLoss


class AdversarialStage(Stage):
    """Train a generator together with the discriminator that is a part of its loss.

    The discriminator is a second group of the parameters of one Adam, with a learning rate and momenta of its own: so
    the checkpoint of `Stage` holds all that a resume needs. Only the generator's weights are averaged and exported.
    `prepare_batch` is told as `progress` which share of the epochs is over.

    Args:
        loss: its parameters are those of the discriminator.
        discriminator_learning_rate: follows the same schedule as the generator's.
        discriminator_betas: of the discriminator's Adam (Isola et al. 2017, Sec. 3.3).
        options: those of `Stage`.
    """

    loss: AdversarialLoss

    def __init__(
        self,
        *,
        loss: AdversarialLoss,
        learning_rate: float,
        discriminator_learning_rate: float = 2e-4,
        discriminator_betas: Sequence[float] = (0.5, 0.999),
        **options: Any,
    ) -> None:
        super().__init__(loss=loss, learning_rate=learning_rate, **options)
        discriminator = {"lr": discriminator_learning_rate, "betas": tuple(discriminator_betas)}
        groups: list[dict[str, Any]] = [
            {"params": self.network.parameters()},
            {"params": loss.parameters(), **discriminator},
        ]
        self.optimizer = self.trainer.optimizer = torch.optim.Adam(groups, lr=learning_rate, fused=True)
        self.schedule = WarmupCosineSchedule(self.optimizer, self.schedule.warmup_steps, self.schedule.t_total)

    def attach_handlers(self) -> None:
        """Those of `Stage`, and the terms of the loss in TensorBoard."""
        super().attach_handlers()
        if is_first():
            TensorBoardStatsHandler(
                log_dir=str(self.folder), epoch_log=False, output_transform=lambda _: self.loss.terms
            ).attach(self.trainer)

    def seed_epoch(self) -> None:
        """See `Stage`; also tell how far the training has come."""
        super().seed_epoch()
        self.trainer.to_kwargs["progress"] = (self.trainer.state.epoch - 1) / self.max_epochs
