"""Put samples together to a batch in which exams lend each other their brightness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import list_data_collate
from monai.utils import convert_to_tensor
from torch import Tensor

STRONGEST = 2.5  # gamma beyond which a contrast no longer looks like one


class ExchangeBrightness:
    """Collate samples, and give an exam's contrasts the median that those of another exam of the batch have.

    With few subjects a network learns by heart how bright each one's contrasts are, and tells them by their anatomy or
    lesion. Here a sample's contrasts, shown and hidden alike, get the median inside the brain of another sample's, by
    one gamma for each contrast. How bright one contrast is where the others are that bright stays as an exam had it,
    so that the network can learn to read it from the scans that it is given.

    Args:
        prob: probability, per sample, that it is changed where it can be: where the window shows brain, and both exams
            have all contrasts. The lender is drawn from the whole batch, the sample itself among them.
        image: key of the contrasts (M, H, W) in [0, 1], whose medians are taken.
        keys: what is changed.
        brain: key of the mask (1, H, W).
        neighbours: slices on either side that follow the M contrasts as further channels; they change with them.

    Raises:
        ValueError: prob is no probability.
    """

    def __init__(
        self,
        prob: float,
        image: str = "image",
        keys: Sequence[str] = ("image", "seen"),
        brain: str = "brain",
        neighbours: int = 0,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: {prob} must lie in 0..1.")
        self.prob, self.image, self.keys, self.brain = prob, image, tuple(keys), brain
        self.slices = 1 + 2 * neighbours

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """The batch of the samples, or of the lists of samples, that a data set gives."""
        batch: dict[str, Any] = list_data_collate(samples)
        plain = {key: convert_to_tensor(batch[key], dtype=torch.float32, track_meta=False) for key in self.keys}
        contrasts = plain[self.image].shape[1] // self.slices
        gamma = self.gamma(plain[self.image][:, :contrasts], torch.as_tensor(batch[self.brain]) > 0)
        exponents = gamma.repeat(1, self.slices)[:, :, None, None]
        return {**batch, **{key: image**exponents for key, image in plain.items()}}

    def gamma(self, image: Tensor, brain: Tensor) -> Tensor:
        """The exponents (B, M) for images (B, M, H, W) with brains (B, 1, H, W); 1 where nothing changes."""
        medians = image.masked_fill(~brain, torch.nan).flatten(2).nanmedian(2).values
        lender = torch.randperm(len(image))
        usable = ((medians > 0) & (medians < 1)).all(1)  # not without brain: NaN is neither
        changed = usable & usable[lender] & (torch.rand(len(image)) < self.prob)
        gamma = (medians[lender].log() / medians.log()).clamp(1 / STRONGEST, STRONGEST)
        return torch.where(changed[:, None], gamma, torch.ones_like(gamma))
