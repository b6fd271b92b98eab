"""Objective of the U-Net baseline."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bundle.losses.structure_aware import StructureAwareLoss


class RegressionLoss(nn.Module):
    """L_sa of the hidden contrasts: the same term as the model's, so that the two differ in the network alone."""

    def __init__(self, frequency_weight: float) -> None:
        super().__init__()
        self.sa = StructureAwareLoss(frequency_weight)

    def forward(self, prediction: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """prediction (B, M, H, W), truth: `image` (B, M, H, W), `counted` (B, M) -> scalar."""
        return self.sa(prediction.float(), truth["image"], truth["counted"])
