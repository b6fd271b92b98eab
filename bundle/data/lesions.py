"""Lesions of generated subjects: multiple-sclerosis-like plaques and ring-enhancing tumours, as soft fraction maps."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.data.anatomy import SHAPE, Anatomy, Push, load_template, smooth_noise

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3  # BraTS 2023; a plaque is labelled as oedema: whole lesion, no core


def draw_mass(rng: np.random.Generator) -> tuple[Push, float]:
    """A place for a tumour, in the white matter of a hemisphere, and the radius of its core in mm."""
    template = load_template()
    x, _, z = (template.affine[i, i] * np.arange(0, n, 3) + template.affine[i, 3] for i, n in enumerate(SHAPE))
    lateral = (np.abs(x) > 18) & (np.abs(x) < 52)
    likely = ndimage.gaussian_filter(template.maps[0], 5)[::3, ::3, ::3] * lateral[:, None, None] * (z > 0)
    centre = 3 * _draw(rng, likely, 1)[0]
    radius = rng.uniform(9, 20)
    return Push(centre=centre, reach=1.5 * radius, strength=rng.uniform(1, 5)), radius


def tumour(rng: np.random.Generator, anatomy: Anatomy, centre: np.ndarray, radius: float) -> dict[str, np.ndarray]:
    """Necrotic core, enhancing ring and finger-like oedema.

    Returns {"necrosis", "enhancing", "oedema"} -> fraction (X, Y, Z) in [0, 1].

    The ring is lobed and ragged and its thickness varies; the oedema runs along the white matter and spares the cortex.
    """
    squares = [
        ((np.arange(n, dtype=np.float32) - c) * np.exp(rng.normal(0, 0.15))) ** 2
        for n, c in zip(SHAPE, centre, strict=True)
    ]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :])
    lobes, ripples, spread = (smooth_noise(rng, sigma)[0] for sigma in (7, 2.5, 10))

    solid = (1 - anatomy.ventricle) * anatomy.cover
    surface = distance + 0.22 * radius * lobes + 1.3 * ripples
    core = _soft(radius - surface, 0.7) * solid
    thickness = radius * rng.uniform(0.2, 0.55) * np.clip(1 + 0.4 * spread, 0.3, 2) + 1
    necrosis = _soft(radius - thickness - surface - 0.8 * ripples, 0.8) * solid
    reach = radius + rng.uniform(8, 22) * (1 + 0.3 * spread)
    tracts = np.clip(1.15 * ndimage.gaussian_filter(anatomy.wm, 0.6) - 0.1, 0, 1) * anatomy.cover
    oedema = _soft(reach - distance - 4 * lobes - 2 * ripples, 2) * tracts * (1 - core)
    return {"necrosis": necrosis, "enhancing": np.clip(core - necrosis, 0, 1), "oedema": oedema}


def plaques(rng: np.random.Generator, anatomy: Anatomy, count: int) -> dict[str, np.ndarray]:
    """White-matter lesions, mostly beside the ventricles: {"lesion", "enhancing"} -> fraction (X, Y, Z) in [0, 1].

    Ovoid, ragged, radii 1.5 to 9 mm, many small and few large; a tenth is active, "enhancing" is their rim of uptake.
    """
    near = ndimage.gaussian_filter(anatomy.ventricle, 5)
    likely = (
        (anatomy.wm > 0.9) * (0.05 + near / max(float(near.max()), 1e-6)) * (1 - np.clip(2 * anatomy.ventricle, 0, 1))
    )
    ragged = smooth_noise(rng, 2.5)[0]
    lesion, active = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    for centre in 2 * _draw(rng, likely[::2, ::2, ::2], count):
        radii = np.clip(rng.lognormal(np.log(2.6), 0.45), 1.5, 9) * np.exp(rng.normal(0, 0.2, 3))
        lower, upper = (
            np.maximum(0, centre - 2 * radii - 3).astype(int),
            np.minimum(SHAPE, centre + 2 * radii + 3).astype(int),
        )
        box = tuple(slice(start, stop) for start, stop in zip(lower, upper, strict=True))
        offsets = np.meshgrid(*[np.arange(b.start, b.stop) for b in box], indexing="ij", sparse=True)
        squares = [((o - c) / r) ** 2 for o, c, r in zip(offsets, centre, radii, strict=True)]
        distance = np.sqrt(squares[0] + squares[1] + squares[2]) + 0.22 * ragged[box]
        inside = _soft(1 - distance, 0.12) * rng.uniform(0.75, 1.0)
        lesion[box] = np.maximum(lesion[box], inside)
        if rng.random() < 0.1:
            active[box] = np.maximum(active[box], inside * _soft(distance - 0.55, 0.08))
    tissue = np.clip(2.5 * anatomy.wm, 0, 1) * anatomy.cover
    active = np.minimum(active, lesion) * tissue
    return {"lesion": lesion * tissue - active, "enhancing": active}


def label_of(parts: dict[str, np.ndarray]) -> np.ndarray:
    """BraTS 2023 labels, uint8 (X, Y, Z), where more than half of a voxel is ill.

    1 necrosis, 2 oedema or plaque, 3 enhancing tumour.
    """
    ill = sum(parts.values(), np.zeros(SHAPE, np.float32)) > 0.5
    if "lesion" in parts:  # an active plaque has no core
        return np.where(ill, OEDEMA, 0).astype(np.uint8)
    order = {"necrosis": NECROSIS, "oedema": OEDEMA, "enhancing": ENHANCING}
    largest = np.stack([parts[name] for name in order]).argmax(0) if parts else np.zeros(SHAPE, int)
    return np.where(ill, np.array(list(order.values()), np.uint8)[largest], 0).astype(np.uint8)


def _soft(signed: np.ndarray, width: float) -> np.ndarray:
    """1 well inside (positive distance), 0 well outside, over about four `width`."""
    return 1 / (1 + np.exp(np.clip(-signed / width, -30, 30), dtype=np.float32))


def _draw(rng: np.random.Generator, likely: np.ndarray, count: int) -> np.ndarray:
    """Indices (count, 3) drawn with probabilities proportional to `likely`."""
    chosen = rng.choice(likely.size, size=count, p=(likely / likely.sum(dtype=float)).ravel())
    return np.stack(np.unravel_index(chosen, likely.shape), axis=1)
