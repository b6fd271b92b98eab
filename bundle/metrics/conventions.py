"""What the intensities are scaled to before they are compared: it moves PSNR by more than any method does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bundle.errors import InputError

PERCENTILES = (0.5, 99.5)

CONVENTIONS = {
    "truth": "The truth's own 0.5 to 99.5 percentile inside the brain is [0, 1], the prediction is scaled like it.",
    "own": "Truth and prediction are each scaled from their own 0.5 to 99.5 percentile inside the brain to [0, 1] and "
    "clipped, as BraSyn does: an error of brightness or contrast is forgiven.",
    "max": "Truth and prediction are each divided by their own maximum inside the brain, as MM-GAN does: an error of "
    "brightness is forgiven.",
}


def apply(name: str, pred: Tensor, truth: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction and truth, scaled by a convention; the range of intensities is then 1.

    Args:
        name: a key of `CONVENTIONS`.
        pred, truth: images of one shape and one scale.
        brain: of that shape, non-zero inside the brain.

    Raises:
        InputError: no such convention.
        ValueError: "truth", and the truth is constant inside the brain.
    """
    check(name)
    if name == "truth":
        low, high = _range(truth, brain)
        if not high > low:
            raise ValueError("The truth is constant inside the brain.")
        black = low * (brain != 0)  # the air around the brain stays 0
        return (pred - black) / (high - low), (truth - black) / (high - low)
    scaled = _over_percentiles if name == "own" else _over_maximum
    return scaled(pred, brain), scaled(truth, brain)


def check(name: str) -> None:
    """Raise an `InputError` if there is no such convention."""
    if name not in CONVENTIONS:
        raise InputError(f"convention: there is no {name!r}", f"Choose from {', '.join(CONVENTIONS)}")


def _range(image: Tensor, brain: Tensor) -> tuple[float, float]:
    # BraSyn takes them over the whole volume; inside the brain they do not depend on how much air the scan holds
    low, high = np.percentile(image[brain != 0].float().cpu().numpy(), PERCENTILES).tolist()
    return low, high


def _over_percentiles(image: Tensor, brain: Tensor) -> Tensor:
    low, high = _range(image, brain)
    if not high > low:
        return torch.zeros_like(image)  # a constant image carries no contrast, whatever it is scaled by
    return ((image - low) / (high - low)).clamp(0, 1)


def _over_maximum(image: Tensor, brain: Tensor) -> Tensor:
    top = image[brain != 0].max()
    return image / top if top > 0 else torch.zeros_like(image)
