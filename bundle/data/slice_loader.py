"""Batches of augmented slices, cut from packed subjects on the device that trains: no file and no Python per voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.data.packed import BRAIN_BIT, LEVELS, REGIONS, Packed
from bundle.transforms.batched import Appearance, affine_grid

SAGITTAL, CORONAL, AXIAL = 0, 1, 2


class SliceLoader:
    """An epoch of random windows of slices, as the batches of the other loader have them.

    A batch has "image" (B, M, H, W) in [0, 1], "seen", a copy that looks as if another scanner had made it, "exists"
    and "presence" (B, M), "regions" (B, 3, H, W), "valid" (B, 3) and "brain" (B, 1, H, W), all float32.

    Slices are of all three planes: inference takes the mean over them. A coronal slice is (X, Z), a sagittal one (Z,
    Y), as `bundle.inferers.views` cuts them. The draw follows from the seed of `reseed` alone, on one kind of device.

    Args:
        subjects: packed subjects; they are moved to the device once.
        device: where the batches are made.
        batch_size: B.
        batches: of an epoch.
        window: side of a window in voxels, H = W.
        weights: how often each subject is drawn, (S,); None: all alike.
        planes: shares of axial, coronal and sagittal slices.
        shift: largest distance of a window's middle from that of the brain, in voxels.
    """

    def __init__(
        self,
        subjects: Packed,
        device: torch.device | str,
        batch_size: int = 32,
        batches: int = 100,
        window: int = 128,
        weights: Sequence[float] | None = None,
        planes: Sequence[float] = (0.5, 0.25, 0.25),
        shift: int = 32,
    ) -> None:
        self.subjects = subjects.to(device)
        self.device = torch.device(device)
        self.batch_size, self.batches, self.window, self.shift = batch_size, batches, window, shift
        self.weights = torch.tensor([1.0] * len(subjects.names) if weights is None else weights, device=device)
        self.planes = torch.tensor(
            [planes[2], planes[1], planes[0]], device=device
        )  # by axis: sagittal, coronal, axial
        self.appearance = Appearance()
        self.generator = torch.Generator(self.device)

    def reseed(self, seed: int) -> None:
        """Let the draws that follow depend on this number."""
        self.generator.manual_seed(seed)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for _ in range(self.batches):
            yield self.batch()

    def batch(self) -> dict[str, Tensor]:
        """Draw one batch."""
        g, b = self.generator, self.batch_size
        chosen = torch.multinomial(self.weights, b, replacement=True, generator=g)
        axis = torch.multinomial(self.planes, b, replacement=True, generator=g)
        corners = self.subjects.corners[chosen]
        rows = torch.arange(b, device=self.device)
        first, last = corners[rows, 0, axis], corners[rows, 1, axis]
        share = torch.rand(b, generator=g, device=self.device)
        place = first + (share * (last - first)).long()
        order = torch.argsort(axis, stable=True)  # plane by plane, since each is cut along another axis
        chosen, axis, place = chosen[order], axis[order], place[order]
        counts = torch.bincount(axis, minlength=3).tolist()
        slices = [
            self.cut(plane, s, z)
            for plane, (s, z) in enumerate(zip(chosen.split(counts), place.split(counts)))
            if len(s)
        ]
        side = max(max(part.shape[2:]) for part in slices)
        voxels = torch.cat([centred(part, side) for part in slices])
        # left and right are the first axis of axial and coronal slices; a mirrored head has the same sagittal ones
        mirrored = (torch.rand(b, generator=g, device=self.device) < 0.5) & (axis != SAGITTAL)
        grid = affine_grid(b, side, self.window, self.shift, g, self.device, mirrored)
        image = F.grid_sample(voxels[:, :-1].float() / LEVELS, grid, align_corners=False)
        bits = F.grid_sample(voxels[:, -1:].float(), grid, mode="nearest", align_corners=False).to(torch.uint8)
        brain = (bits & BRAIN_BIT) > 0
        image = image * brain
        regions = torch.cat([(bits >> k) & 1 for k in range(REGIONS)], dim=1).float()
        exists = self.subjects.exists[chosen]
        shown = exists * image.flatten(2).any(2)
        exists = torch.where(shown.any(1, keepdim=True), shown, exists)
        return {
            "image": image,
            "seen": self.appearance(image, g),
            "exists": exists,
            "presence": self.draw_presence(exists),
            "regions": regions,
            "valid": self.subjects.valid[chosen],
            "brain": brain.float(),
        }

    def cut(self, axis: int, subjects: Tensor, places: Tensor) -> Tensor:
        """Slices across an axis, (N, M + 1, H, W) uint8."""
        voxels = self.subjects.voxels
        if axis == AXIAL:
            return voxels[subjects, :, :, :, places]
        if axis == CORONAL:
            return voxels[subjects, :, :, places, :]
        return voxels[subjects, :, places, :, :].transpose(2, 3)

    def draw_presence(self, exists: Tensor) -> Tensor:
        """Which of the contrasts that exist are shown: each non-empty subset is equally likely, (B, M) -> (B, M)."""
        m = exists.shape[1]
        codes = torch.arange(1, 2**m, device=exists.device)
        subsets = (codes[:, None] >> torch.arange(m, device=exists.device)) & 1  # (2^M - 1, M)
        possible = (subsets[None] <= exists[:, None]).all(2).float()
        drawn = torch.multinomial(possible, 1, generator=self.generator)[:, 0]
        return subsets[drawn].to(exists.dtype)


def centred(slices: Tensor, side: int) -> Tensor:
    """Pad (N, c, H, W) with zeros to (N, c, side, side), the content in the middle."""
    h, w = slices.shape[2:]
    top, left = (side - h) // 2, (side - w) // 2
    return F.pad(slices, (left, side - w - left, top, side - h - top))
