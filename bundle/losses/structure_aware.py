"""Structure-aware loss L_sa: faithful in the image and in its spectrum."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn


@cache  # one for each size and device: a CUDA graph cannot copy to the device
def dct_matrix(n: int, device: torch.device) -> Tensor:
    """Orthonormal DCT-II as a matrix: D (n, n), so that D x is the transform of a signal x (n,)."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None, :]
    d = torch.cos(math.pi * k * (2 * i + 1) / (2 * n)) * math.sqrt(2 / n)
    d[0] /= math.sqrt(2)
    return d.float().to(device)


def dct2(image: Tensor) -> Tensor:
    """2-D DCT-II over the last two axes, orthonormal: (..., H, W) -> (..., H, W)."""
    h, w = image.shape[-2:]
    return dct_matrix(h, image.device).to(image) @ image @ dct_matrix(w, image.device).to(image).T


@cache
def window_matrix(n: int, device: torch.device, size: int = 7, sigma: float = 1.5) -> Tensor:
    """SSIM's Gaussian window as a matrix: G (n - size + 1, n), so that G x averages a signal x (n,) without padding."""
    distance = torch.arange(n)[None, :] - torch.arange(size // 2, n - size // 2)[:, None]
    weight = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= size // 2)
    return (weight / weight.sum(dim=1, keepdim=True)).to(device)


def ssim(x_hat: Tensor, x: Tensor, data_range: float) -> Tensor:
    """Mean SSIM over the last two axes' windows of 7x7, (..., H, W) twice -> (...) (Wang et al., IEEE TIP 2004).

    The same value as MONAI's `compute_ssim_and_cs`. The windows are matrix products here, like the DCT: with
    convolutions of single channels and their gradient, CPUs take four times as long for this loss.
    """
    rows, columns = (window_matrix(n, x.device).to(x) for n in x.shape[-2:])
    mu_hat, mu, square_hat, square, product = rows @ torch.stack([x_hat, x, x_hat**2, x**2, x_hat * x]) @ columns.T
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mu_hat * mu + c1) / (mu_hat**2 + mu**2 + c1)
    structure = (2 * (product - mu_hat * mu) + c2) / (square_hat - mu_hat**2 + square - mu**2 + c2)
    return (luminance * structure).mean((-2, -1))


class FrequencyLoss(nn.Module):
    r"""L_freq = 1 - SSIM(c(D(x^)), c(D(x))), D the 2-D DCT   (MSG-LDM, Sec. 2.3, changed).

    The paper compares |D|. That cannot see a flip (the DCT of a mirrored image differs in signs only), and its range
    is set by the zero-frequency term, beside which all others vanish: a blur or an empty image cost about nothing.
    Here the sign is kept and c(v) = sign(v) log(1 + |v| / epsilon) brings all frequencies to one scale.

    Args:
        paper_form: compare |D| with the range of the batch, as the paper has it.
        epsilon: coefficients far below it do not count; of the order of the noise of an image in [0, 1].
    """

    def __init__(self, paper_form: bool = False, epsilon: float = 0.1) -> None:
        super().__init__()
        self.paper_form = paper_form
        self.epsilon = epsilon

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1], twice -> scalar in [0, 2]."""
        return self.of_each(prediction, truth).mean()

    def of_each(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """The loss of each image: (..., H, W) in [0, 1], twice -> (...) in [0, 2]."""
        a, b = dct2(prediction.float()), dct2(truth.float())
        if self.paper_form:
            a, b = a.abs(), b.abs()
            data_range = float((b.max() - b.min()).detach().clamp(min=1e-6))
        else:
            a, b = self._compress(a), self._compress(b)
            data_range = 2 * math.log1p(1 / self.epsilon)
        return 1 - ssim(a, b, data_range)

    def _compress(self, coefficients: Tensor) -> Tensor:
        return coefficients.sign() * torch.log1p(coefficients.abs() / self.epsilon)


class StructureAwareLoss(nn.Module):
    """L_sa = L_rec + L_freq with L_rec the mean absolute error (MSG-LDM, Sec. 2.3).

    Args:
        frequency_weight: weight of L_freq; the paper's is 1.
        paper_form: see `FrequencyLoss`.
        squared_weight: L_rec = |e| + squared_weight e^2. The absolute error alone asks for the median of what is
            possible, and with it for grey where a voxel may be fluid or tissue; the paper's is 0.
        lesion_weight: by how much more a voxel of the lesion counts in L_rec; the paper's is 0.
    """

    def __init__(
        self,
        frequency_weight: float = 1.0,
        paper_form: bool = False,
        squared_weight: float = 0.0,
        lesion_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.frequency_weight, self.squared_weight, self.lesion_weight = frequency_weight, squared_weight, lesion_weight
        self.frequency = FrequencyLoss(paper_form)

    def forward(self, prediction: Tensor, truth: Tensor, counted: Tensor, lesion: Tensor | None = None) -> Tensor:
        """The loss, by arithmetic whose shapes do not depend on the data (CUDA graphs).

        Args:
            prediction, truth: (B, M, H, W) in [0, 1].
            counted: (B, M), 1 where a truth was asked for; 0 where the prediction is not looked at.
            lesion: (B, 1, H, W), 1 in the lesion; None: nowhere.

        Returns:
            A scalar, 0 where nothing was asked for.
        """
        share = counted / counted.sum().clamp(min=1)
        prediction = torch.where(counted.bool()[:, :, None, None], prediction, truth)
        error = (prediction - truth).abs()
        if self.squared_weight:
            error = error + self.squared_weight * error**2
        if self.lesion_weight and lesion is not None:
            error = error * (1 + self.lesion_weight * lesion)
        loss = (error.mean((2, 3)) * share).sum()
        if self.frequency_weight:
            loss = loss + self.frequency_weight * (self.frequency.of_each(prediction, truth) * share).sum()
        return loss
