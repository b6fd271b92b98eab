"""What a denoiser predicts, and the clean latent that follows from it."""

from __future__ import annotations

from torch import Tensor, nn

PREDICTIONS = ("v", "noise")


class Denoiser(nn.Module):
    """A network that predicts v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) z_0, or the noise epsilon itself.

    v (Salimans and Ho 2022, Sec. 4) stays well scaled at every noise level; the noise says nothing about z_0 where
    there is little else. alpha_bar is that of the schedule: z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) epsilon.

    Args:
        prediction: "v" or "noise".

    Raises:
        ValueError: another prediction.
    """

    def __init__(self, prediction: str) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction: {prediction!r} must be one of {PREDICTIONS}.")
        self.prediction = prediction

    def truth(self, z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
        """What is to be predicted: z_0, noise (B, c, ...), alpha_bar (B,) -> (B, c, ...)."""
        if self.prediction == "noise":
            return noise
        a = alpha_bar.to(z_0.dtype).reshape(-1, *[1] * (z_0.ndim - 1))
        return a.sqrt() * noise - (1 - a).sqrt() * z_0

    def clean(self, prediction: Tensor, z_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """z_0 that follows from what is predicted at z_t: (B, c, ...) twice, alpha_bar () -> (B, c, ...)."""
        a = alpha_bar.to(z_t.dtype)
        if self.prediction == "noise":
            return (z_t - (1 - a).sqrt() * prediction) / a.sqrt()
        return a.sqrt() * z_t - (1 - a).sqrt() * prediction
