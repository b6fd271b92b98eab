"""Prepared subjects in a compact form: 8 bits per voxel, cropped to the brain, all of them in one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.errors import InputError

LEVELS = 255  # of 8 bits: a step of 0.004, far below the noise of a scan
REGIONS = 3  # whole lesion, core, enhancing part
BRAIN_BIT = 1 << REGIONS


@dataclass(frozen=True)
class Packed:
    """S prepared subjects on one grid of 1 mm.

    Attributes:
        voxels: (S, M + 1, X, Y, Z) uint8: M contrasts, 0 to 255 for intensities from 0 to 1; then the masks as bits:
            bits 0 to 2 the lesion's regions, bit 3 the brain.
        exists: (S, M) float32, 1 where a subject has a contrast.
        valid: (S, 3) float32, 1 where a region of the lesion is known.
        corners: (S, 2, 3) int64, the first voxel of a subject's brain along X, Y, Z, and the one after its last.
        names: of the subjects.
    """

    voxels: Tensor
    exists: Tensor
    valid: Tensor
    corners: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Packed:
        """The same on a device."""
        moved = {key: getattr(self, key).to(device) for key in ("voxels", "exists", "valid", "corners")}
        return replace(self, **moved)

    def select(self, names: Sequence[str]) -> Packed:
        """Some of the subjects, in the order of `names`.

        Raises:
            InputError: a name that is not there.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(f"subject {missing[0]} is not among the packed ones", "Pack it, or correct the split file")
        rows = torch.tensor([self.names.index(name) for name in names], dtype=torch.long)
        on = rows.to(self.voxels.device)
        chosen = {key: getattr(self, key)[on] for key in ("voxels", "exists", "valid", "corners")}
        return Packed(**chosen, names=tuple(names))


def pack(item: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One prepared subject, cropped to its brain.

    Args:
        item: `image` (M, X, Y, Z) in [0, 1], `exists` (M,), `brain` (1, X, Y, Z), `regions` (3, X, Y, Z), `valid` (3,).

    Returns:
        Arrays for `np.savez_compressed`: `voxels` (M + 1, x, y, z) uint8 as in `Packed`, `exists`, `valid`.
    """
    brain = np.asarray(item["brain"][0]) > 0
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(brain))
    cut = (slice(None), *box)
    image = np.asarray(item["image"], dtype=np.float32)[cut]
    bits = brain[box] * np.uint8(BRAIN_BIT)
    for k, region in enumerate(np.asarray(item["regions"])[cut]):
        bits = bits | (region > 0) * np.uint8(1 << k)
    voxels = np.concatenate([np.rint(image.clip(0, 1) * LEVELS).astype(np.uint8), bits[None].astype(np.uint8)])
    return {
        "voxels": voxels,
        "exists": np.asarray(item["exists"], np.float32),
        "valid": np.asarray(item["valid"], np.float32),
    }


def save_packed(item: Mapping[str, Any], path: str | Path) -> None:
    """Write `pack` of a subject to a file (.npz)."""
    np.savez_compressed(path, **pack(item))  # type: ignore[arg-type]


def load_packed(paths: Iterable[str | Path]) -> Packed:
    """Read the files of `save_packed`; the subjects are named after them.

    Raises:
        InputError: no file.
    """
    parts: dict[str, Mapping[str, np.ndarray]] = {}
    for path in map(Path, paths):
        with np.load(path) as file:
            parts[path.stem] = {key: file[key] for key in ("voxels", "exists", "valid")}
    if not parts:
        raise InputError("there are no packed subjects", "Pack the subjects first (scripts/pack.py)")
    return gather(parts)


def gather(parts: Mapping[str, Mapping[str, Any]], multiple: int = 16) -> Packed:
    """Put subjects (name -> what `pack` gives) on one grid, each in its middle, with sides of a multiple of voxels."""
    shapes = np.array([part["voxels"].shape[1:] for part in parts.values()])
    shape = [int(-(-side // multiple) * multiple) for side in shapes.max(0)]
    voxels, corners = [], []
    for part in parts.values():
        volume = torch.as_tensor(part["voxels"])
        before = [(side - own) // 2 for side, own in zip(shape, volume.shape[1:])]
        after = [side - own - start for side, own, start in zip(shape, volume.shape[1:], before)]
        voxels.append(F.pad(volume, [n for pair in zip(before[::-1], after[::-1]) for n in pair]))
        corners.append([before, [start + own for start, own in zip(before, volume.shape[1:])]])
    return Packed(
        voxels=torch.stack(voxels),
        exists=torch.stack([torch.as_tensor(part["exists"]) for part in parts.values()]),
        valid=torch.stack([torch.as_tensor(part["valid"]) for part in parts.values()]),
        corners=torch.tensor(corners),
        names=tuple(parts),
    )
