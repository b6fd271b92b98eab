"""Lesions of generated subjects as fractions of the voxels: tumours, plaques and white-matter lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from bundle.phantoms.fields import blur, positions, resize, sample, smooth_noise, soft_step

# kind of tumour -> how often; about as in BraTS, most of whose tumours have an enhancing ring
KINDS = {"ring": 0.5, "solid": 0.13, "diffuse": 0.22, "cystic": 0.15}
PARTS = ("oedema", "enhancing", "necrosis", "diffuse", "fluid", "blood products", "plaque")
CORE = ("enhancing", "necrosis", "diffuse", "fluid", "blood products")
Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Tumour:
    """What is drawn of a tumour before its subject's shape: its kind, and the radius and oedema of its core in mm."""

    kind: str
    radius: float
    oedema: float


def draw_tumour(rng: np.random.Generator) -> Tumour:
    """Core of 4 to 32 mm radius; with its oedema 5 to 45 mm."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    radius = float(np.clip(rng.lognormal(np.log(17), 0.45), 4, 32))
    widest = min(24.0, 45 - radius)
    oedema = rng.uniform(0, 5) if kind == "diffuse" or rng.random() < 0.15 else rng.uniform(4, widest)
    return Tumour(kind, radius, float(oedema))


def grow(
    tumour: Tumour, centre: Tensor, white: Tensor, solid: Tensor, rng: np.random.Generator, generator: Generator
) -> Parts:
    """Fractions (1, X, Y, Z) in [0, 1] of the `PARTS` of a tumour: a lobed core, oedema along the white matter.

    Args:
        tumour: of `draw_tumour`.
        centre: (3,) in voxels.
        white, solid: (1, X, Y, Z) fractions of white matter, and of all tissue that a tumour can grow in.
        rng, generator: what is drawn.
    """
    shape = white.shape[1:]
    stretch = torch.tensor(np.exp(rng.normal(0, 0.18, 3)), dtype=torch.float32, device=white.device)
    offset = (positions(shape, white.device) - centre.view(3, 1, 1, 1)) * stretch.view(3, 1, 1, 1)
    distance = (offset**2).sum(0, keepdim=True).sqrt()
    lobes, ripples, spread, fine = (smooth_noise(shape, sigma, generator) for sigma in (7, 2.5, 10, 1.3))
    radius = tumour.radius
    surface = distance + 0.2 * radius * lobes + min(1.4, 0.15 * radius) * ripples
    ragged = 2.0 if tumour.kind == "diffuse" else float(rng.uniform(0.4, 0.9))
    core = soft_step(radius - surface, ragged) * solid
    tracts = ((1.15 * blur(white, 0.6) - 0.1).clamp(0, 1) + 0.15).clamp(max=1) * solid
    reach = radius + tumour.oedema * (1 + 0.35 * spread)
    oedema = soft_step(reach - distance - 3.5 * lobes - 2 * ripples, 1.6) * tracts * (1 - core)
    oedema = oedema * min(1.0, tumour.oedema / 3) * float(rng.uniform(0.7, 1))
    parts = {"oedema": oedema, **_core(tumour, core, radius - surface, spread, ripples, rng)}
    if tumour.kind != "cystic" and rng.random() < 0.15:
        bleed = soft_step(spread + 0.6 * fine - rng.uniform(0.8, 1.6), 0.2) * core
        parts = {name: part if name == "oedema" else part * (1 - bleed) for name, part in parts.items()}
        parts["blood products"] = bleed
    return parts


def _core(
    tumour: Tumour, core: Tensor, depth: Tensor, spread: Tensor, ripples: Tensor, rng: np.random.Generator
) -> Parts:
    """The core of a tumour (fraction) parted by its depth (mm below its surface)."""
    radius = tumour.radius
    if tumour.kind == "solid":
        patches = soft_step(0.9 - spread - 0.4 * ripples, 0.25)
        return {"enhancing": core * patches, "diffuse": core * (1 - patches)}
    if tumour.kind == "diffuse":
        spots = soft_step(spread + 0.5 * ripples - rng.uniform(1.2, 3.5), 0.2)
        return {"diffuse": core * (1 - spots), "enhancing": core * spots}
    thin = tumour.kind == "cystic"
    rim = radius * rng.uniform(0.08, 0.2) + 1 if thin else radius * rng.uniform(0.2, 0.6) + 1
    inner = soft_step(depth - rim * (1 + 0.4 * spread).clamp(0.3, 2) - 0.8 * ripples, 0.7) * core
    parts = {"enhancing": core - inner, "fluid" if thin else "necrosis": inner}
    if not thin and rng.random() < 0.6:  # a part of the ring that does not take up contrast agent
        gap = soft_step(spread - rng.uniform(0.4, 1.6), 0.2)
        parts["diffuse"] = parts["enhancing"] * gap
        parts["enhancing"] = parts["enhancing"] * (1 - gap)
    return parts


def place_mask(
    mask: Tensor, white: Tensor, ventricle: Tensor, rng: np.random.Generator, generator: Generator
) -> Tensor:
    """A real mask of plaques (x, y, z), on another brain: the fraction (1, X, Y, Z) of plaque.

    It is turned, scaled and moved so that most of it lies in white matter near the ventricles: the best of several
    random tries.
    """
    shape, device = white.shape[1:], white.device
    step = 3.0
    coarse = [int((n - 1) // step) + 1 for n in shape]
    nodes = positions(coarse, device, step)
    near = sample(blur(ventricle, 4.0), nodes)
    liked = sample(white, nodes) * (0.3 + near / near.amax().clamp(min=1e-6)) - 0.5 * sample(ventricle, nodes)
    middle = _centre_of(ventricle)
    size = torch.tensor(mask.shape, device=device, dtype=torch.float32)
    soft = mask[None].float() / 255
    heart = _centre_of(soft)
    heart = torch.stack([(size[0] - 1) / 2, heart[1], heart[2]]).view(3, 1, 1, 1)  # both hemispheres are alike
    flip = float(rng.choice([-1.0, 1.0]))
    found = []
    for _ in range(10):
        turn = torch.tensor(_turn(rng) * np.exp(rng.normal(0, 0.06, (3, 1))), dtype=torch.float32, device=device)
        turn[0] *= flip
        shift = torch.tensor(rng.normal(0, (3, 10, 8)), dtype=torch.float32, device=device)
        places = torch.tensordot(turn, nodes - (middle + shift).view(3, 1, 1, 1), dims=1) + heart
        found.append((float((sample(soft, places) * liked).sum()), turn, shift))
    _, turn, shift = max(found, key=lambda one: one[0])
    wobble = resize(2.4 * smooth_noise([n // 2 + 1 for n in shape], 3, generator, 3), shape)
    offset = positions(shape, device) + wobble - (middle + shift).view(3, 1, 1, 1)
    return sample(soft, torch.tensordot(turn, offset, dims=1) + heart).clamp(max=1)


def draw_plaques(
    count: int, white: Tensor, ventricle: Tensor, rng: np.random.Generator, generator: Generator
) -> Tensor:
    """Ovoid plaques in the white matter, mostly near the ventricles: the fraction (1, X, Y, Z).

    Radii of 1.5 to 9 mm, many small and few large.
    """
    shape, device = white.shape[1:], white.device
    near = blur(ventricle[:, ::2, ::2, ::2], 3.0)
    likely = (white > 0.8)[:, ::2, ::2, ::2] * (0.05 + near / near.amax().clamp(min=1e-6))
    found = torch.zeros_like(white)
    if not bool(likely.any()):
        return found
    ragged = smooth_noise(shape, 2.5, generator)
    flat = torch.multinomial(likely.flatten(), count, replacement=True, generator=generator).cpu()
    for centre in 2 * np.stack(np.unravel_index(flat.numpy(), likely.shape[1:]), axis=1):
        radii = np.clip(rng.lognormal(np.log(2.6), 0.45), 1.5, 9) * np.exp(rng.normal(0, 0.2, 3))
        lower = np.maximum(0, centre - 2 * radii - 3).astype(int)
        upper = np.minimum(shape, centre + 2 * radii + 3).astype(int)
        box = (slice(None), *(slice(a, b) for a, b in zip(lower, upper)))
        offset = positions(upper - lower, device) + torch.tensor(lower - centre, device=device).view(3, 1, 1, 1)
        scaled = offset / torch.tensor(radii, dtype=torch.float32, device=device).view(3, 1, 1, 1)
        distance = (scaled**2).sum(0, keepdim=True).sqrt() + 0.22 * ragged[box]
        found[box] = torch.maximum(found[box], float(rng.uniform(0.7, 1)) * soft_step(1 - distance, 0.12))
    return found


def _centre_of(fraction: Tensor) -> Tensor:
    """Centre of mass (3,) in voxels of (1, X, Y, Z)."""
    weight = fraction[0].sum().clamp(min=1e-6)
    axes = [fraction[0].sum([a for a in range(3) if a != axis]) for axis in range(3)]
    return torch.stack([(torch.arange(len(a), device=a.device) * a).sum() / weight for a in axes])


def _turn(rng: np.random.Generator) -> np.ndarray:
    """A rotation by some degrees, (3, 3)."""
    x, y, z = np.radians(rng.normal(0, 6, 3))
    spin = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + spin + spin @ spin / 2
