"""Objective of the adversarial baselines; the discriminator is a part of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn


class AdversarialLoss(nn.Module):
    """L = L_rec + weight L_adv of the generator, plus L_D of the discriminator  (least squares, Mao et al. 2017).

    One backward pass serves both networks: L_adv does not reach the discriminator's weights, nor L_D the generator's.
    So both step at the same time, from the same prediction, and not in turn.

    A discriminator with one output channel judges the exam; one with M judges every contrast, and then the contrasts
    that were given count as real in a made exam, too (implicit conditioning, Sharma & Hamarneh 2020).

    Args:
        reconstruction: L_rec, maps (prediction, truth) to a scalar.
        discriminator: maps (exam (B, M, H, W), truth) to (B, 1 or M, h, w).
        weight: of L_adv.
    """

    def __init__(self, reconstruction: nn.Module, discriminator: nn.Module, weight: float = 0.01) -> None:
        super().__init__()
        self.reconstruction, self.discriminator, self.weight = reconstruction, discriminator, weight
        self.least_squares = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.terms: dict[str, float] = {}  # of the latest call, for the log

    def forward(self, prediction: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Loss of a prediction (B, M, H, W).

        Args:
            prediction: of all contrasts; those that are not counted are not looked at.
            truth: `image` (B, M, H, W); `given` (B, 2M, H, W), the available contrasts and their maps; `counted`
                (B, M), 1 where a truth was asked for; `presence` (B, M); and what the discriminator needs.

        Returns:
            A scalar; 0 where nothing was asked for.
        """
        loss = self.reconstruction(prediction, truth)
        self.terms = {"reconstruction": loss.item()}
        if not truth["counted"].any():
            return loss
        made, real = self.exam(prediction.float(), truth), self.exam(truth["image"], truth)
        self.discriminator.requires_grad_(False)
        fools = self.score(made, truth, made_is=True, train_discriminator=False)
        self.discriminator.requires_grad_(True)
        told = self.score(real, truth, made_is=True) + self.score(made.detach(), truth, made_is=False)
        self.terms.update(adversarial=fools.item(), discriminator=told.item() / 2)
        return loss + self.weight * fools + told / 2

    def exam(self, image: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """The contrasts that count from `image`, the others as they were given, 0 where they do not exist."""
        counted = truth["counted"].bool()[:, :, None, None]
        return torch.where(counted, image, truth["given"][:, : image.shape[1]])

    def score(
        self, exam: Tensor, truth: Mapping[str, Tensor], made_is: bool, train_discriminator: bool = True
    ) -> Tensor:
        """Squared distance of the discriminator's judgement from the label of each contrast.

        Always in float32: in bfloat16 on a CPU the gradient of a convolution with one output channel, as at the end of
        a discriminator, is now and then NaN, another time finite for the same numbers (torch 2.13).

        Args:
            exam: (B, M, H, W).
            truth: see `forward`.
            made_is: the label of the contrasts that count, real or not; that of the given ones is always real.
            train_discriminator: whose loss it is.
        """
        with torch.autocast(exam.device.type, enabled=False):
            judgement = self.discriminator(exam, truth)
        counted, given = truth["counted"].bool(), truth["presence"].bool()
        if judgement.shape[1] == 1:
            return self.least_squares(judgement[counted.any(1)], made_is, train_discriminator)
        return self.least_squares(judgement[counted], made_is, train_discriminator) + self.least_squares(
            judgement[given], True, train_discriminator
        )
