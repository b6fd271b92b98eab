"""High-Frequency Injection Block: adds back what an input-adaptive Gaussian filter takes away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HFIB(nn.Module):
    r"""C_high = C - G_theta(C),  S = C + C_high   (MSG-LDM, eq. 2).

    G_theta is a Gaussian whose width is predicted from the features themselves, one per sample and channel: a linear
    map of the channels' mean and mean gradient, squashed into `sigma_range`. The kernel sums to one and the border is
    replicated, so a constant image has no high frequencies and passes unchanged.

    Args:
        channels: number of feature channels c.
        kernel_size: odd side of the Gaussian's support, in pixels.
        sigma_range: smallest and largest width that can be predicted, in pixels.
    """

    offsets: Tensor

    def __init__(self, channels: int, kernel_size: int = 5, sigma_range: tuple[float, float] = (0.3, 2.0)) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: {kernel_size} must be odd, because the filter is centred on a pixel.")
        self.radius = kernel_size // 2
        self.sigma_min, self.sigma_max = sigma_range
        self.theta = nn.Linear(2 * channels, channels)
        nn.init.normal_(self.theta.weight, std=0.1)
        nn.init.zeros_(self.theta.bias)
        self.register_buffer("offsets", torch.arange(-self.radius, self.radius + 1.0), persistent=False)

    def sigma(self, content: Tensor) -> Tensor:
        """Predicted widths in pixels: (B, c, H, W) -> (B, c)."""
        gradient = (content[..., 1:] - content[..., :-1]).abs().mean((2, 3))
        theta = self.theta(torch.cat([content.mean((2, 3)), gradient], dim=1))
        return self.sigma_min + (self.sigma_max - self.sigma_min) * theta.sigmoid()

    def low_pass(self, content: Tensor) -> Tensor:
        """G_theta(C): (B, c, H, W) -> (B, c, H, W)."""
        b, c, h, w = content.shape
        sigma = self.sigma(content).float().reshape(b * c, 1)
        kernel = torch.softmax(-0.5 * (self.offsets / sigma) ** 2, dim=1)  # a normalised Gaussian is a softmax
        low = F.pad(content, (self.radius,) * 4, mode="replicate").reshape(1, b * c, h + 2 * self.radius, -1)
        # One group per sample and channel: every feature map is filtered with its own kernel. In float32: CPUs filter
        # single channels half as fast in bfloat16.
        with torch.autocast(content.device.type, enabled=False):
            low = low.float()
            for taps in self.taps(kernel):
                low = F.conv2d(low, taps[:, None], groups=b * c)
        return low.reshape(b, c, h, w).to(content.dtype)

    @staticmethod
    def taps(kernel: Tensor) -> list[Tensor]:
        """The filters to apply in turn, from 1-D kernels (N, k): (N, k, k), or (N, k, 1) and (N, 1, k), the same thing.

        Both axes at once is faster forward, since passes over memory cost more than products; one after the other is
        faster with the gradients of the kernels, of 2k taps instead of k^2.
        """
        rows, columns = kernel[:, :, None], kernel[:, None, :]
        return [rows, columns] if torch.is_grad_enabled() else [rows * columns]

    def forward(self, content: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W)."""
        return content + (content - self.low_pass(content))
