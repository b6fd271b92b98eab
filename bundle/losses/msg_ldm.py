"""Objective of the disentanglement stage: the terms of eq. 3 that shape structure and style."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bundle.losses.segmentation import RegionLoss
from bundle.losses.structure_aware import StructureAwareLoss
from bundle.losses.style_consistency import StyleConsistencyLoss


class DisentanglementLoss(nn.Module):
    """lambda_seg L_seg + lambda_sc L_sc + lambda_sa L_sa   (MSG-LDM, eq. 3; L_ldm is trained in a stage of its own).

    Args:
        lambda_seg, lambda_sc, lambda_sa: weights; 0 leaves a term out. The paper does not state its values.
        frequency_weight, paper_frequency, squared_weight, lesion_weight: see `StructureAwareLoss`.
    """

    def __init__(
        self,
        lambda_seg: float = 0.1,
        lambda_sc: float = 0.1,
        lambda_sa: float = 1.0,
        frequency_weight: float = 0.1,
        paper_frequency: bool = False,
        squared_weight: float = 0.0,
        lesion_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.lambdas = {"seg": lambda_seg, "sc": lambda_sc, "sa": lambda_sa}
        self.seg = RegionLoss()
        self.sc = StyleConsistencyLoss()
        self.sa = StructureAwareLoss(frequency_weight, paper_frequency, squared_weight, lesion_weight)

    def forward(self, prediction: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the terms.

        Args:
            prediction: what `Disentanglement.forward` returns.
            truth: `image` (B, M, H, W), `counted` (B, M), `presence` (B, M), `regions` (B, R, H, W), `valid` (B, R).
        """
        terms = {
            "seg": lambda: self.seg(prediction["segmentation"], truth["regions"], truth["valid"]),
            "sc": lambda: self.sc(prediction["style"], truth["presence"]),
            "sa": lambda: self.sa(
                prediction["reconstruction"].float(), truth["image"], truth["counted"], truth["regions"][:, :1]
            ),
        }
        return sum(weight * terms[name]() for name, weight in self.lambdas.items() if weight)
