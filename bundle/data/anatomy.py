"""Anatomy of generated subjects: the tissue maps of the ICBM 2009 template, made into an individual brain."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from monai.networks.blocks import DVF2DDF, Warp
from scipy import ndimage
from torch.nn import functional

# The working grid: 1 mm, RAS, just larger than the template's brain. 155 slices, as in BraTS, cut the cord's end.
SHAPE = (176, 208, 155)
CORNER = (10, 13, 0)  # of the working grid, in voxels of the template's
NODES = 3  # mm between the nodes of the velocity field


@dataclass(frozen=True)
class Push:
    """A growing mass: centre in voxels of the working grid, reach in mm, displacement of the tissue there in mm."""

    centre: np.ndarray
    reach: float
    strength: float


@dataclass(frozen=True)
class Template:
    """The brain from which individuals are drawn, on the working grid: the template's, or that of a real exam.

    Attributes:
        maps: (7, X, Y, Z) float32: white matter, grey matter, CSF, ventricles (part of the CSF), venous sinuses and
            choroid plexus as fractions in [0, 1]; then texture, by how much the T1-weighted intensity (of white
            matter: 0.87) deviates from what the tissues have.
        affine: (4, 4), to MNI space in mm; of a real exam, to the middle of its brain.
        lesions: tissue of `mr_signal.TISSUES` -> fraction (X, Y, Z) in [0, 1]: what the brain is ill with.
        averaged: over many people, so that an individual needs sulci and vessels of its own.
    """

    maps: np.ndarray
    affine: np.ndarray
    lesions: dict[str, np.ndarray] = field(default_factory=dict)
    averaged: bool = True


@dataclass(frozen=True)
class Anatomy:
    """An individual brain on the working grid, maps (X, Y, Z).

    The fractions of the four tissues sum to 1 inside `brain` (bool, a skull-stripping tool's mask), to less in its rim,
    which holds some dura and bone (no signal), and to 0 outside. The others are as in `Template`.
    """

    wm: np.ndarray
    gm: np.ndarray
    csf: np.ndarray
    blood: np.ndarray
    ventricle: np.ndarray
    texture: np.ndarray
    brain: np.ndarray
    lesions: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def cover(self) -> np.ndarray:
        """How much of each voxel gives signal."""
        return self.wm + self.gm + self.csf + self.blood


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read the template that nilearn carries (no download) and complete its tissue maps.

    The maps know grey and white matter only: what else lies inside the brain (ventricles, sulci, cisterns) becomes CSF.
    """
    from nilearn import datasets  # belongs to the extra "demo": nothing else needs it

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    images = [load(resolution=1) for load in loaders]
    box = tuple(slice(start, start + size) for start, size in zip(CORNER, SHAPE, strict=True))
    t1, gm, wm = (np.asarray(image.dataobj, dtype=np.float32)[box] for image in images)
    affine = np.array(images[0].affine, dtype=float)
    affine[:3, 3] += affine[:3, :3] @ np.array(CORNER)

    padded = np.pad(t1 > 0, 8)
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(padded, iterations=6))[8:-8, 8:-8, 8:-8]
    csf = np.clip(brain - gm - wm, 0, 1)
    vessels = _place_vessels(brain, csf, affine)
    expected = 0.27 * csf + 0.65 * gm + 0.87 * wm  # the template's own mean intensity in each tissue
    texture = np.where(brain & (t1 > 0), t1 - expected, 0) * np.clip(gm + wm, 0, 1) ** 2
    texture -= ndimage.gaussian_filter(texture, 12)
    return Template(maps=np.stack([wm, gm, csf, *vessels, texture]).astype(np.float32), affine=affine)


def _place_vessels(brain: np.ndarray, csf: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ventricles, venous sinuses and choroid plexus, by their places in MNI space."""
    x, y, z = np.meshgrid(
        *[affine[i, i] * np.arange(n) + affine[i, 3] for i, n in enumerate(SHAPE)], indexing="ij", sparse=True
    )
    depth = ndimage.distance_transform_edt(brain)
    fluid, _ = ndimage.label((csf > 0.55) & (depth > 22) & (np.abs(x) < 40) & (y > -46) & (z > -14))
    inside = fluid == np.argmax(np.bincount(fluid[fluid > 0]))
    ventricle = csf * ndimage.binary_dilation(inside, iterations=2)

    rim = brain & (depth <= 4)
    sagittal = rim & (np.abs(x) < 4.5) & (z > -5) & ((y < 40) | (z > 30))
    transverse = rim & (np.abs(z + 18 + 0.08 * (y + 90)) < 4) & (y < -62) & (np.abs(x) < 60)
    straight = (np.abs(x) < 2.5) & (np.abs((z - 2) - 0.75 * (-y - 48)) < 3) & (y < -45) & (y > -72) & (csf > 0.2)
    atria = (np.abs(y + 36) < 10) & (np.abs(np.abs(x) - 22) < 9) & (z > -6) & (z < 20)
    plexus = atria & ndimage.binary_erosion(ventricle > 0.4)
    sinus = sagittal | transverse | straight
    return ventricle, *(ndimage.gaussian_filter(part.astype(np.float32), 0.7) for part in (sinus, plexus))


def smooth_noise(
    rng: np.random.Generator, sigma: float, shape: tuple[int, ...] = SHAPE, channels: int = 1
) -> np.ndarray:
    """Gaussian random fields of unit variance, (channels, *shape) float32, smoothed by a Gaussian of `sigma` voxels."""
    step = max(1.0, sigma / 2)
    coarse = tuple(int(np.ceil(n / step)) + 1 for n in shape)
    field = rng.standard_normal((channels, *coarse), dtype=np.float32)
    field = ndimage.gaussian_filter(field, (0, *[sigma / step] * 3), mode="wrap")
    field /= field.std(axis=(1, 2, 3), keepdims=True)
    return resize(field, shape)


def resize(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Trilinear interpolation of (C, x, y, z) to (C, *shape)."""
    return functional.interpolate(torch.from_numpy(field)[None], shape, mode="trilinear", align_corners=True)[0].numpy()


def individual(rng: np.random.Generator, push: Push | None = None, template: Template | None = None) -> Anatomy:
    """Draw a brain like the template's, by default that of nilearn, with or without a mass that pushes tissue aside."""
    template = template or load_template()
    displacement = torch.from_numpy(deformation(rng, push, template))[None]
    maps = np.concatenate([template.maps, *(part[None] for part in template.lesions.values())])
    warped = _without_warning(Warp, padding_mode="zeros")(torch.from_numpy(maps)[None], displacement)[0].numpy()
    wm, gm, csf, ventricle, sinus, plexus, texture = warped[:7]
    brain, cover = _strip(rng, wm + gm + csf)
    blood = np.clip(sinus + plexus, 0, 1)
    if template.averaged:
        wm, csf, blood = _personal(rng, wm, csf, ventricle, sinus, plexus)
    tissue = (1 - blood) * cover
    return Anatomy(
        wm=wm * tissue,
        gm=(1 - wm - csf) * tissue,
        csf=csf * tissue,
        blood=blood * cover,
        ventricle=np.clip(ventricle, 0, 1),
        texture=texture * brain,
        brain=brain,
        lesions={name: part * cover for name, part in zip(template.lesions, warped[7:], strict=True)},
    )


def _personal(
    rng: np.random.Generator,
    wm: np.ndarray,
    csf: np.ndarray,
    ventricle: np.ndarray,
    sinus: np.ndarray,
    plexus: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """White matter, CSF and blood of one person, made of the template's.

    The template averages 152 people: its ribbon is wide, its sulci are faint. Sharpening makes one person of it, noise
    another one.
    """
    folds = smooth_noise(rng, 2.2)[0]
    sulci = rng.uniform(0.9, 2.0) * _sharpen(np.clip(csf - ventricle, 0, 1), 1.4, 1.5) * (1 + 0.35 * folds) - 0.12
    csf = np.clip(np.clip(sulci, 0, 1) + _sharpen(ventricle, 1.2, 1.2), 0, 1)
    wm = np.clip(_sharpen(wm, 1.4, 1.3) + rng.uniform(0.06, 0.14) * folds * 4 * wm * (1 - wm), 0, 1 - csf)
    return wm, csf, _vessels(rng, np.clip(csf - ventricle, 0, 1), sinus, plexus)


def deformation(rng: np.random.Generator, push: Push | None, template: Template) -> np.ndarray:
    """A random individual's shape: displacement (3, X, Y, Z) from its voxels to their places in the template.

    A diffeomorphism, the flow of a smooth stationary velocity field (scaling and squaring), is followed by an affine
    map (size and pose of the head). The velocities bend lobes (24 mm) and gyri (6 mm), widen or narrow the ventricles,
    and move tissue away from a mass.
    """
    coarse = tuple(-(-n // NODES) for n in SHAPE)
    velocity = rng.uniform(1.5, 3.0) * smooth_noise(rng, 24 / NODES, coarse, 3)
    velocity += rng.uniform(0.8, 1.6) * smooth_noise(rng, 6 / NODES, coarse, 3)
    ventricle = ndimage.gaussian_filter(resize(template.maps[3:4], coarse)[0], 2)
    slope = np.stack(np.gradient(ventricle))
    velocity += rng.uniform(-1.5, 3.0) * slope / max(float(np.abs(slope).max()), 1e-6)
    if push is not None:
        offset = np.stack(np.meshgrid(*[NODES * np.arange(n) for n in coarse], indexing="ij"))
        offset = offset - push.centre.reshape(3, 1, 1, 1)
        distance = np.sqrt((offset**2).sum(0)) / push.reach
        velocity -= push.strength * offset / push.reach * np.exp(1 - distance)
    nodes = torch.from_numpy(velocity.astype(np.float32) / NODES)[None]
    flow = NODES * resize(_without_warning(DVF2DDF, num_steps=6)(nodes)[0].numpy(), SHAPE)

    middle = ((np.array(SHAPE, dtype=np.float32) - 1) / 2).reshape(3, 1, 1, 1)
    grid = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in SHAPE], indexing="ij"))
    shift = middle + rng.uniform(-2, 2, (3, 1, 1, 1)).astype(np.float32)
    return np.tensordot(_pose(rng, template), grid + flow - middle, axes=1) + shift - grid


def _pose(rng: np.random.Generator, template: Template) -> np.ndarray:
    """Subject to template, (3, 3): a few degrees of rotation; the average brain is 9 % longer than most."""
    size = (1.09 if template.averaged else 1.0) * np.exp(rng.normal(0, 0.025, 3) + rng.normal(0, 0.03))
    x, y, z = np.radians(rng.normal(0, 2.5, 3))
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return (np.diag(size) @ about_x @ about_y @ about_z).astype(np.float32)


def _sharpen(values: np.ndarray, sigma: float, amount: float) -> np.ndarray:
    return values + amount * (values - ndimage.gaussian_filter(values, sigma, truncate=3))


def _strip(rng: np.random.Generator, soft: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A brain mask as a tool leaves it, tight here and loose there, and how much of each voxel gives signal."""
    edge = ndimage.gaussian_filter(soft, 1.0, truncate=3)
    pieces, _ = ndimage.label(edge + 0.08 * smooth_noise(rng, 8)[0] > rng.uniform(0.33, 0.46))
    brain = ndimage.binary_fill_holes(pieces == np.argmax(np.bincount(pieces[pieces > 0])))
    return brain, np.clip((edge - 0.48) / 0.3, 0.02, 1) * brain


def _vessels(rng: np.random.Generator, sulci: np.ndarray, sinus: np.ndarray, plexus: np.ndarray) -> np.ndarray:
    """Fraction of blood: sinuses, plexus, and winding tubes in the sulci, where two random surfaces cut each other."""
    first, second = smooth_noise(rng, 5, channels=2)
    tubes = np.exp(-(first**2 + second**2) / (2 * rng.uniform(0.11, 0.17) ** 2))
    near_pia = np.clip(4 * ndimage.uniform_filter(sulci, 3), 0, 1)
    ragged = np.clip(0.4 + 0.5 * smooth_noise(rng, 1.5)[0], 0, 1)
    parts = 1.3 * tubes * near_pia, rng.uniform(0.7, 1.0) * sinus, rng.uniform(0.2, 0.6) * plexus * ragged
    return np.clip(sum(parts), 0, 1)


def _without_warning(layer: type[torch.nn.Module], **arguments: object) -> torch.nn.Module:
    """A layer of MONAI that warns when it is made without MONAI's compiled extension, which nobody needs here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return layer(**arguments)
