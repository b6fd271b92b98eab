"""SynDiff: diffusion in a few large steps, each learnt against a discriminator (Özbey et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from bundle.networks.baselines.completion import Completion
from bundle.networks.baselines.pixel_diffusion import ConditionalUNet, noise_of_volume


def large_steps(num_steps: int, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """alpha_bar of the noisy ends of the steps, (T,): the variance-preserving process  (Xiao et al. 2022)."""
    t = torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps
    return torch.exp(-0.5 * (beta_max - beta_min) * t**2 - beta_min * t).float()


def posterior(x_0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """A sample of q(x_{t-1} | x_t, x_0)  (Ho et al. 2020, eqs. 6 and 7).

    Args:
        x_0, x_t, noise: (B, M, H, W).
        t: (B,), the step, from T - 1 down to 0, which ends at x_0 itself.
        alphas_cumprod: alpha_bar of the noisy ends of the steps, (T,).
    """
    a_bar = alphas_cumprod[t][:, None, None, None]
    a_bar_before = torch.cat([torch.ones_like(alphas_cumprod[:1]), alphas_cumprod[:-1]])[t][:, None, None, None]
    alpha = a_bar / a_bar_before
    mean = a_bar_before.sqrt() * (1 - alpha) * x_0 + alpha.sqrt() * (1 - a_bar_before) * x_t
    variance = (1 - alpha) * (1 - a_bar_before) / (1 - a_bar)
    return mean / (1 - a_bar) + variance.sqrt() * noise


class AdversarialDiffusion(Completion):
    """Conditional reverse diffusion in T large steps: the generator predicts x_0, the posterior gives x_{t-1}.

    `seed` chooses the noise; it always takes its T steps from pure noise (`num_steps`, `start_level` are not used).
    SynDiff's second module, which makes unpaired images paired by cycle consistency, is left out: ours are paired.

    Args:
        contrasts: names of the M contrasts, in channel order.
        generator: arguments of `ConditionalUNet` but for num_contrasts.
        adversarial_steps: T.
        seed: of the sampling.
    """

    alphas_cumprod: Tensor

    def __init__(
        self, contrasts: Sequence[str], generator: dict[str, object], adversarial_steps: int = 4, seed: int = 0
    ) -> None:
        super().__init__(contrasts)
        self.generator = ConditionalUNet(len(self.contrasts), **generator)  # type: ignore[arg-type]
        self.register_buffer("alphas_cumprod", large_steps(adversarial_steps), persistent=False)
        self.num_steps, self.seed = adversarial_steps, seed

    def make(self, image: Tensor, presence: Tensor) -> Tensor:
        """A sample of the missing contrasts, all (B, M, H, W)."""
        given, missing = torch.cat([image, presence], dim=1), 1 - presence
        random = torch.Generator().manual_seed(self.seed)
        x = noise_of_volume(random, image)
        for step in reversed(range(len(self.alphas_cumprod))):
            t = torch.full((len(x),), step, device=x.device)
            x_0 = self.generator(x * missing, t, given).to(x.dtype).clamp(0, 1)
            x = posterior(2 * x_0 - 1, x, t, noise_of_volume(random, image), self.alphas_cumprod)
        return (x + 1) / 2


class TransitionDiscriminator(nn.Module):
    """Is this step from x_t to x_{t-1} one of the diffusion process?  (Özbey et al. 2023)

    It is given x_0, true or made, and draws x_{t-1} from the posterior: with the true x_0 the pair has the same
    distribution as in the forward process. The time is a constant map.

    Args:
        num_contrasts: M.
        adversarial_steps: T.
        channels: of the first convolution.
    """

    alphas_cumprod: Tensor

    def __init__(self, num_contrasts: int, adversarial_steps: int = 4, channels: int = 32) -> None:
        super().__init__()
        self.register_buffer("alphas_cumprod", large_steps(adversarial_steps), persistent=False)
        self.network = PatchDiscriminator(2, channels, in_channels=2 * num_contrasts + 1, norm="instance")

    def forward(self, exam: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Judge the step that leads to an exam.

        Args:
            exam: x_0 (B, M, H, W), in [0, 1].
            truth: `x_t` (B, M, H, W), `t` (B,), `counted` (B, M), the contrasts that are to be made.

        Returns:
            (B, 1, h, w), trained towards 1 where the step is real and 0 where it is made.
        """
        x_t, t = truth["x_t"], truth["t"]
        x_before = posterior(2 * exam - 1, x_t, t, torch.randn_like(x_t), self.alphas_cumprod)
        time = ((t + 1) / len(self.alphas_cumprod))[:, None, None, None].expand_as(x_t[:, :1])
        return self.network(torch.cat([x_before * truth["counted"][:, :, None, None], x_t, time], dim=1))[-1]
