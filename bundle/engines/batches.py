"""What each stage makes of a batch of slices: MONAI `prepare_batch` functions.

"image" and "seen" hold the M contrasts, and may hold those of neighbouring slices behind them, (B, (1 + 2N) M, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from bundle.errors import InputError
from bundle.networks.msg_ldm import MSGLDM
from bundle.networks.sampler import add_noise

Batch = Mapping[str, Tensor]


def plain(batch: Batch, device: Any, non_blocking: bool, *keys: str) -> list[Tensor]:
    """Some items of a batch as plain float32 tensors on a device.

    A MetaTensor drags its metadata through every operation and into the running mean of the styles.
    """
    tensors = (convert_to_tensor(batch[key], dtype=torch.float32, track_meta=False) for key in keys)
    return [tensor.to(device, non_blocking=non_blocking) for tensor in tensors]


class AutoencoderBatch:
    """Square windows of the contrasts that exist: images (B windows, 1, size, size), which are also the targets.

    Each window shows one contrast, drawn at random, around a pixel of the brain. Windows of a third of the slice train
    the convolutions faster than whole slices, most of which are background.

    Args:
        size: side of a window in pixels; a multiple of the autoencoder's reduction.
        windows: windows per slice.
    """

    def __init__(self, size: int = 64, windows: int = 4) -> None:
        self.size, self.windows = size, windows

    def __call__(self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
        seen, exists, brain = plain(batch, device, non_blocking, "seen", "exists", "brain")
        slices = zip(seen, exists, brain)
        image = torch.stack([self.window(*one) for one in slices for _ in range(self.windows)])
        return image, image

    def window(self, seen: Tensor, exists: Tensor, brain: Tensor) -> Tensor:
        """seen (M [+ more], H, W), exists (M,), brain (1, H, W) -> (1, size, size)."""
        if self.size > min(seen.shape[1:]):
            raise InputError(
                f"autoencoder_window {self.size} is larger than a slice",
                "Use at most the slice_size as autoencoder_window",
            )
        places = brain[0].nonzero() if brain.any() else torch.zeros(1, 2, dtype=torch.long, device=brain.device)
        centre = places[torch.randint(len(places), ())]
        drawn = int(torch.multinomial(exists, 1))
        sides = zip(centre.tolist(), seen.shape[1:])
        row, column = (min(max(middle - self.size // 2, 0), length - self.size) for middle, length in sides)
        return seen[drawn : drawn + 1, row : row + self.size, column : column + self.size]


class DisentanglementBatch:
    """Some contrasts are shown, and the hidden ones are to be reconstructed.

    Args:
        reconstruct_shown: probability that a shown contrast is to be reconstructed too, from its own style.
        region_mask: give the lesion regions as a further condition.
        region_prob: probability that they are given, where they are known.
    """

    def __init__(self, reconstruct_shown: float = 0.25, region_mask: bool = False, region_prob: float = 0.5) -> None:
        self.reconstruct_shown, self.region_mask, self.region_prob = reconstruct_shown, region_mask, region_prob

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Any, ...], dict[str, Any]]:
        image, seen, exists, presence, regions, valid = plain(
            batch, device, non_blocking, "image", "seen", "exists", "presence", "regions", "valid"
        )
        again = presence * (torch.rand_like(presence) < self.reconstruct_shown)
        counted = torch.maximum(exists * (1 - presence), again)
        m = presence.shape[1]
        truth = torch.where(presence.bool()[:, :, None, None], seen[:, :m], image[:, :m])
        targets = {"image": truth, "counted": counted, "presence": presence, "regions": regions, "valid": valid}
        region = region_input(regions, valid, self.region_prob) if self.region_mask else None
        return seen, targets, (presence, counted, region, valid.amax(1)), {}


def region_input(regions: Tensor, valid: Tensor, prob: float) -> Tensor:
    """Regions (B, R, H, W) and the map that says whether they are given, withheld at random: (B, R + 1, H, W)."""
    given = valid.amax(1) * (torch.rand(len(valid), device=valid.device) < prob)
    given_map = given[:, None, None, None].expand(-1, 1, *regions.shape[2:])
    return torch.cat([regions * valid[:, :, None, None] * given_map, given_map], dim=1)


def hide_one_of_complete(exists: Tensor, presence: Tensor) -> Tensor:
    """Hide a contrast, at random, of each sample that has several and shows all: (B, M), (B, M) -> (B, M)."""
    rows = ((presence >= exists).all(1) & (presence.sum(1) > 1)).nonzero().flatten()
    shown = presence.clone()
    if len(rows):
        shown[rows, torch.multinomial(presence[rows], 1).squeeze(1)] = 0
    return shown


class DiffusionBatch:
    """Noisy latents of the hidden contrasts, guided by the frozen structure of the shown ones  (MSG-LDM, eq. 1).

    Args:
        model: the whole model; its autoencoder and disentanglement are used as they are, without gradients.
        region_mask, region_prob: see `DisentanglementBatch`.
        amp: compute the frozen parts in bfloat16, as inference does.
    """

    def __init__(self, model: MSGLDM, region_mask: bool = False, region_prob: float = 0.5, amp: bool = False) -> None:
        self.model, self.region_mask, self.region_prob, self.amp = model, region_mask, region_prob, amp

    @torch.no_grad()
    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...], dict[str, Any]]:
        with torch.autocast(torch.device(device or "cpu").type, torch.bfloat16, enabled=self.amp):
            z_0, target, *condition = self.frozen(batch, device, non_blocking)
        noise = torch.randn_like(z_0)
        t = torch.randint(len(self.model.alphas_cumprod), (len(z_0),), device=z_0.device)
        alpha_bar = self.model.alphas_cumprod[t]
        truth = self.model.diffusion.truth(z_0, noise, alpha_bar)
        self.model.diffusion.train()
        return add_noise(z_0, noise, alpha_bar), truth, (t, target, *condition), {}

    def frozen(self, batch: Batch, device: Any, non_blocking: bool) -> tuple[Tensor, ...]:
        """Latents z_0 (N, c, h, w) of N hidden contrasts, which they are (N,), and what guides the denoiser there."""
        image, seen, exists, presence, regions, valid = plain(
            batch, device, non_blocking, "image", "seen", "exists", "presence", "regions", "valid"
        )
        self.model.eval()
        presence = hide_one_of_complete(exists, presence)
        region = region_input(regions, valid, self.region_prob) if self.region_mask else None
        structure = self.model.disentanglement.encode_structure(seen, presence, region)
        available = self.model.encode_available(seen, presence)
        sample, target = (exists * (1 - presence)).nonzero(as_tuple=True)
        if not len(sample):  # a batch of single contrasts: each is denoised from its own structure, its latent withheld
            sample, target = torch.arange(len(image), device=image.device), presence.argmax(1)
            presence = presence.clone()
            presence[sample, target] = 0
        wanted = torch.zeros_like(presence)
        wanted[sample, target] = 1
        made = self.model.disentanglement.reconstruct_unseen(structure, wanted)[sample, target].clamp(0, 1)
        z_0, mean = self.model.encode(torch.cat([image[sample, target], made]).unsqueeze(1)).float().chunk(2)
        return z_0, target, structure.fused[sample], available[sample], presence[sample], mean


class RegressionBatch:
    """The network's input (B, 2M, H, W) and the hidden contrasts to predict from it (the U-Net baseline)."""

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image, seen, exists, presence = plain(batch, device, non_blocking, "image", "seen", "exists", "presence")
        maps = presence[:, :, None, None].expand_as(image)
        return torch.cat([seen * maps, maps], dim=1), {"image": image, "counted": exists * (1 - presence)}


class ValidationBatch:
    """The network's input (B, C, H, W) as `MSGLDM` has it, and the hidden truth with the brain to score it in.

    Args:
        score_shown: score the contrasts that are shown (the autoencoder's ceiling) instead of the hidden ones.
        regions: number of region channels of a network that takes a region mask; the mask is withheld.
    """

    def __init__(self, score_shown: bool = False, regions: int = 0) -> None:
        self.score_shown, self.regions = score_shown, regions

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image, exists, presence, brain = plain(batch, device, non_blocking, "image", "exists", "presence", "brain")
        m = presence.shape[1]
        maps = presence[:, :, None, None].expand(-1, -1, *image.shape[2:])
        counted = presence if self.score_shown else exists * (1 - presence)
        withheld = image.new_zeros(len(image), self.regions + 1 if self.regions else 0, *image.shape[2:])
        shown = image * maps.repeat(1, image.shape[1] // m, 1, 1)
        x = torch.cat([shown[:, :m], maps, withheld, shown[:, m:]], dim=1)
        return x, {"image": image[:, :m], "counted": counted, "brain": brain}
