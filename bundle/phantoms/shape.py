"""The shape of another person's head: where each voxel of a generated subject lies in the label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Generator, Tensor
from torch.nn import functional

from bundle.phantoms.fields import blur, positions, resize, sample, smooth_noise
from bundle.phantoms.label_maps import SURROUND, TISSUES

NODES = 4  # mm between the nodes on which a shape is drawn
MARGIN = 10  # mm kept around the brain
# centres of tissues in MNI space, mm (left and right together), by which a head is set upright
LANDMARKS = {
    "white matter": (0, -22, 17),
    "cortex": (0, -20, 15),
    "deep grey": (0, 6, 4),
    "thalamus": (0, -18, 6),
    "cerebellar cortex": (0, -63, -35),
    "brain stem": (0, -30, -33),
    "ventricle": (0, -18, 14),
}


@dataclass(frozen=True)
class Push:
    """A growing mass: its centre (3,) in voxels, its reach and how far it moves tissue there, both in mm."""

    centre: Tensor
    reach: float
    strength: float


class Shape:
    """A random shape of the head that a label map shows, drawn on a coarse grid, the head upright as in MNI space.

    Args:
        tissues: (X, Y, Z) uint8 of `label_maps.read_label_map`.
        rng: draws pose, size and strengths.
        generator: draws the bending.
    """

    def __init__(self, tissues: Tensor, rng: np.random.Generator, generator: Generator) -> None:
        self.tissues, device = tissues, tissues.device
        turn = upright({name: self.coarse([TISSUES.index(name)]) for name in LANDMARKS})
        inside = self.coarse([number for number, name in enumerate(TISSUES) if name not in SURROUND])
        found = NODES * np.argwhere(inside[0].cpu().numpy() > 0.5) @ turn  # in the upright axes
        lower, upper = found.min(0) - MARGIN, found.max(0) + MARGIN
        coarse = np.ceil((upper - lower) / NODES).astype(int) + 1
        self.full = tuple((NODES * (coarse - 1) + 1).tolist())
        self.nodes = positions(coarse.tolist(), device, NODES)
        middle = torch.tensor(NODES * (coarse - 1) / 2, dtype=torch.float32, device=device).view(3, 1, 1, 1)
        there = torch.tensor(turn @ (lower + upper) / 2, dtype=torch.float32, device=device).view(3, 1, 1, 1)
        pose = torch.tensor(turn @ _pose(rng), dtype=torch.float32, device=device)
        bend = rng.uniform(1.5, 3.5) * smooth_noise(coarse.tolist(), 24 / NODES, generator, 3)
        bend += rng.uniform(0.6, 1.4) * smooth_noise(coarse.tolist(), 8 / NODES, generator, 3)
        self.places = torch.tensordot(pose, self.nodes - middle, dims=1) + there + bend
        slope = torch.stack(torch.gradient(blur(self.coarse([TISSUES.index("ventricle")]), 1.5)[0]))
        slope = sample(slope / slope.abs().amax().clamp(min=1e-6), self.places / NODES, "border")
        self.places = self.places + float(rng.uniform(-1.5, 3.5)) * slope  # narrower or wider ventricles
        self.deep = sample(2 * (blur(inside, 2.0) - 0.5).clamp(min=0), self.places / NODES, "border")

    def coarse(self, numbers: Sequence[int]) -> Tensor:
        """Share of some tissues around each node, (1, x, y, z)."""
        share = torch.isin(self.tissues, torch.tensor(numbers, dtype=torch.uint8, device=self.tissues.device))
        return functional.avg_pool3d(share[None].float(), NODES + 1, NODES, NODES // 2, count_include_pad=False)

    def draw_place(self, likely: Tensor, generator: Generator) -> Tensor:
        """A place (3,) in voxels, drawn in proportion to `likely` (1, x, y, z), coarse, of the label map."""
        found = sample(blur(likely, 1.0), self.places / NODES).clamp(min=0)
        node = torch.multinomial(found.flatten(), 1, generator=generator)
        return self.nodes.flatten(1)[:, node[0]]

    def push(self, push: Push) -> None:
        """Let a mass move the tissue around it aside; the skull stays where it is."""
        offset = self.nodes - push.centre.view(3, 1, 1, 1)
        distance = (offset**2).sum(0, keepdim=True).sqrt() / push.reach
        moved = self.nodes - push.strength * self.deep * offset / push.reach * torch.exp(1 - distance)
        self.places = sample(self.places, moved / NODES, "border")

    def fractions(self, count: int, channels: int) -> Tensor:
        """Fractions (channels, X, Y, Z) of the tissues 0 ... `count` - 1 in this shape; further channels are 0.

        Each tissue is brought over within the box that it fills: most are small.
        """
        places = resize(self.places, self.full)
        filled = torch.zeros((channels, *self.full), device=places.device)
        for number in range(1, count):
            near = sample((self.coarse([number]) > 0).float(), self.places / NODES)[0] > 0
            if not bool(near.any()):
                continue
            at = torch.nonzero(near)
            lower, upper = (NODES * (at.amin(0) - 1)).clamp(min=0).tolist(), (NODES * (at.amax(0) + 1) + 1).tolist()
            x, y, z = (slice(a, b) for a, b in zip(lower, upper))
            here = places[:, x, y, z]
            first = (here.amin((1, 2, 3)).floor().long() - 1).clamp(min=0)
            last = here.amax((1, 2, 3)).ceil().long() + 2
            part = self.tissues[tuple(slice(a, b) for a, b in zip(first.tolist(), last.tolist()))] == number
            filled[number, x, y, z] = sample(part[None].float(), here - first.view(3, 1, 1, 1))[0]
        filled[0] = 1 - filled[1:count].sum(0)
        return filled


def upright(landmarks: Mapping[str, Tensor]) -> np.ndarray:
    """The rotation (3, 3) from the axes of MNI space to those of a map, whose `LANDMARKS` (1, x, y, z) are given.

    It is that which brings the centres closest to each other; the identity where the map lacks one of them.
    """
    shares = {name: share[0].cpu().numpy() for name, share in landmarks.items()}
    if not all(share.any() for share in shares.values()):
        return np.eye(3)
    here = np.array([ndimage.center_of_mass(share) for share in shares.values()])
    there = np.array([LANDMARKS[name] for name in shares], dtype=float)
    u, _, v = np.linalg.svd((here - here.mean(0)).T @ (there - there.mean(0)))
    return u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v


def _pose(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) from the subject to the map: another size, a turn of some degrees and a little shear."""
    size = np.exp(rng.normal(0, 0.03, 3) + rng.normal(0.01, 0.03))
    x, y, z = np.radians(rng.normal(0, (5, 3, 3)))
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    shear = np.eye(3) + np.triu(rng.normal(0, 0.015, (3, 3)), 1)
    return np.diag(size) @ shear @ about_x @ about_y @ about_z
