"""What each stage of ALDM makes of a batch: MONAI `prepare_batch` functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.engines.batches import Batch, plain
from bundle.inferers.aldm import as_slices
from bundle.networks.aldm import ALDM
from bundle.networks.sampler import add_noise


class CropBatch:
    """Crops of one contrast each, drawn from those that exist: images (B, 1, H, W, D), which are also the targets."""

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, progress: float = 1.0, **_: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        seen, exists = plain(batch, device, non_blocking, "seen", "exists")
        image = seen[torch.arange(len(seen)), torch.multinomial(exists, 1).flatten()].unsqueeze(1)
        return image, {"image": image, "progress": progress}


class PairBatch:
    """Pairs of contrasts of a subject, source and target drawn at random; they differ where it has two.

    Args:
        pairs: per subject.
    """

    def __init__(self, pairs: int = 4) -> None:
        self.pairs = pairs

    def draw(self, batch: Batch, device: Any, non_blocking: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents of the sources and of the targets (B pairs, c, h, w, d), and which contrasts they are (B pairs,)."""
        seen, image, exists = (
            tensor.repeat_interleave(self.pairs, 0)
            for tensor in plain(batch, device, non_blocking, "seen", "image", "exists")
        )
        rows = torch.arange(len(exists), device=exists.device)
        source = torch.multinomial(exists, 1).flatten()
        others = exists.clone()
        others[rows, source] = (exists.sum(1) == 1).to(exists.dtype)
        target = torch.multinomial(others, 1).flatten()
        return seen[rows, source], image[rows, target], source, target


class TranslationBatch(PairBatch):
    """Source latents, to be turned into those of the target, and back."""

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor], dict[str, Any]]:
        z_src, z_tar, source, target = self.draw(batch, device, non_blocking)
        return z_src, {"target": z_tar, "source": z_src}, (source, target), {}


class DenoisingBatch(PairBatch):
    """Noisy target latents beside the target-like ones that the frozen MS-SPADE makes  (ALDM, eq. 4).

    Args:
        model: the whole model.
        pairs: see `PairBatch`.
    """

    def __init__(self, model: ALDM, pairs: int = 4) -> None:
        super().__init__(pairs)
        self.model = model

    @torch.no_grad()
    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
        z_src, z_0, _source, target = self.draw(batch, device, non_blocking)
        self.model.eval()
        like = self.model.target_like(z_src, target).float()
        noise = torch.randn_like(z_0)
        t = torch.randint(len(self.model.alphas_cumprod), (len(z_0),), device=z_0.device)
        alpha_bar = self.model.alphas_cumprod[t]
        self.model.diffusion.train()
        wanted = self.model.diffusion.truth(z_0, noise, alpha_bar)
        return add_noise(z_0, noise, alpha_bar), wanted, (t, target, like), {}


class ValidationVolume:
    """A volume of which one contrast is shown, and the truth to score, as axial slices (see `inferers.aldm`).

    Args:
        contrasts: names of the M contrasts.
        source: the contrast that is shown; a subject without it shows its first.
        score_shown: score the contrast that is shown (the autoencoder's ceiling) instead of the others.
    """

    def __init__(self, contrasts: Sequence[str], source: str = "t1", score_shown: bool = False) -> None:
        self.source, self.score_shown = list(contrasts).index(source), score_shown

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Volumes "image" (1, M, H, W, D), "exists" (1, M), "brain" (1, 1, H, W, D) -> (D, 2M, H, W) and its truth."""
        image, exists, brain = plain(batch, device, non_blocking, "image", "exists", "brain")
        shown = self.source if exists[0, self.source] else int(exists[0].argmax())
        presence = torch.zeros_like(exists)
        presence[0, shown] = 1
        maps = presence[:, :, None, None, None].expand_as(image)
        counted = presence if self.score_shown else exists * (1 - presence)
        slices = as_slices(torch.cat([image * maps, maps], dim=1))
        truth = {"image": as_slices(image), "brain": as_slices(brain), "counted": counted.expand(len(slices), -1)}
        return slices, truth
