"""Style consistency loss L_sc: styles of one contrast together, of different contrasts apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StyleConsistencyLoss(nn.Module):
    r"""L_sc = -1/N^2 sum_pq [T_pq log s(z_pq) + (1 - T_pq) log s(-z_pq)],  z_pq = tau s_p . s_q   (MSG-LDM, Sec. 2.3).

    s_p are the L2-normalised styles of all available images of the batch, T_pq = 1 where p and q are the same contrast.
    The temperature tau = exp(log_tau) is learned: the loss has a parameter, which must be given to the optimiser.

    Args:
        tau: initial temperature.
    """

    def __init__(self, tau: float = 1 / 0.07) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau)))

    def forward(self, style: Tensor, presence: Tensor) -> Tensor:
        """style (B, M, d), presence (B, M) -> scalar; absent contrasts take no part."""
        b, m = presence.shape
        s = F.normalize(style.flatten(0, 1).float(), dim=1)
        z = self.log_tau.exp() * (s @ s.T)
        same = torch.eye(m, device=z.device).repeat(b, b)
        weight = presence.flatten().float()
        terms = F.binary_cross_entropy_with_logits(z, same, reduction="none") * weight[:, None] * weight[None, :]
        return terms.sum() / weight.sum().clamp(min=1) ** 2
