"""Subjects drawn from label maps: another shape, a lesion, a protocol; on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from bundle.phantoms.fields import blur, resize, smooth_noise, soft_step
from bundle.phantoms.label_maps import SURROUND, TISSUES
from bundle.phantoms.lesions import CORE, Parts, Tumour, draw_plaques, draw_tumour, grow, place_mask
from bundle.phantoms.scanner import CONTRASTS, NAMES, acquire, draw_grids, draw_protocol
from bundle.phantoms.shape import Push, Shape

KINDS = ("tumour", "plaques", "none")
MIX = (0.4, 0.4, 0.2)  # how often each of them
AROUND = [TISSUES.index(name) for name in SURROUND]
WHITE = [TISSUES.index(name) for name in ("white matter", "lesion")]

# where tumours grow: mostly in the white matter of the hemispheres
GROWS = {"white matter": 1.0, "lesion": 1.0, "cortex": 0.4, "deep grey": 0.5, "thalamus": 0.3}
GROWS |= {"cerebellar white matter": 0.1, "cerebellar cortex": 0.05, "brain stem": 0.05}
STILL = ("csf", "ventricle", "fluid", "vessel", "outside")  # without texture


@dataclass(frozen=True)
class Drawn:
    """A generated subject, 1 mm, RAS, tensors on the device of its label map.

    Attributes:
        images: (4, X, Y, Z) float32: T1, T1CE, T2 and FLAIR in arbitrary units, above 0 in the brain and 0 outside.
        brain: (X, Y, Z) bool, as a skull-stripping tool's mask.
        regions: (3, X, Y, Z) bool: whole tumour (or plaques), tumour core, enhancing tumour.
        valid: (3,) bool: which of the regions are known. Plaques are a whole lesion without parts.
        kind: one of `KINDS`.
    """

    images: Tensor
    brain: Tensor
    regions: Tensor
    valid: Tensor
    kind: str


@torch.no_grad()
def draw_subject(
    tissues: Tensor, generator: Generator, masks: Sequence[Tensor] = (), mix: Sequence[float] = MIX
) -> Drawn:
    """Draw a subject from a label map; a generator of the same state gives the same bytes on the same device.

    Args:
        tissues: (X, Y, Z) uint8 of `label_maps.read_label_map`.
        generator: what everything is drawn from, on the device of `tissues`.
        masks: (x, y, z) uint8 of `label_maps.read_lesion_mask` on that device, from which half of the subjects with
            plaques have theirs; the others' are drawn.
        mix: how likely the `KINDS` are.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator, device=generator.device)))
    kind = str(rng.choice(KINDS, p=np.array(mix) / sum(mix)))
    fractions, tumour, centre = _anatomy(tissues, kind, rng, generator)
    inside = 1 - fractions[AROUND].sum(0, keepdim=True)
    parts: Parts = {}
    if tumour is not None and centre is not None:
        fluid = fractions[[TISSUES.index("ventricle"), TISSUES.index("csf")]].sum(0, keepdim=True)
        parts = grow(tumour, centre, fractions[WHITE].sum(0, keepdim=True), inside * (1 - fluid), rng, generator)
    elif kind == "plaques":
        parts = _plaques(fractions, masks, rng, generator)
    brain, skull = _strip(inside, rng, generator)
    fractions[0] += fractions[1:].sum(0) * skull
    fractions[1 : len(TISSUES)] *= 1 - skull
    ill = torch.stack([torch.zeros_like(inside), *parts.values()]).sum(0)
    fractions[: len(TISSUES)] *= (1 - ill).clamp(0, 1)
    for name, part in parts.items():
        fractions[NAMES.index(name)] = part[0]
    images = scan(fractions, rng, generator) * brain
    regions, valid = _regions(parts, ill, kind, brain)
    return Drawn(images, brain[0], regions, valid, kind)


def _anatomy(
    tissues: Tensor, kind: str, rng: np.random.Generator, generator: Generator
) -> tuple[Tensor, Tumour | None, Tensor | None]:
    """Fractions (K, X, Y, Z) of the `NAMES` of another person, and a tumour and its place (3,), if there is one.

    Only the `TISSUES` are there yet, no part of a lesion that is drawn.
    """
    if rng.random() < 0.5:
        tissues = tissues.flip(0)
    if kind == "none" or rng.random() < 0.5:  # without the lesions that the map has
        tissues = torch.where(tissues == TISSUES.index("lesion"), TISSUES.index("white matter"), tissues)
    shape = Shape(tissues, rng, generator)
    if kind != "tumour":
        return shape.fractions(len(TISSUES), len(NAMES)), None, None
    tumour = draw_tumour(rng)
    likely = torch.stack([weight * shape.coarse([TISSUES.index(name)]) for name, weight in GROWS.items()]).sum(0)
    centre = shape.draw_place(likely, generator)
    shape.push(Push(centre, 1.4 * tumour.radius, float(rng.uniform(0.05, 0.3)) * tumour.radius))
    return shape.fractions(len(TISSUES), len(NAMES)), tumour, centre


def _plaques(fractions: Tensor, masks: Sequence[Tensor], rng: np.random.Generator, generator: Generator) -> Parts:
    """Plaques of a real mask or drawn ones, in white matter; a tenth of the subjects has some that take up agent."""
    white = fractions[WHITE].sum(0, keepdim=True)
    own, ventricle = fractions[TISSUES.index("lesion"), None], fractions[TISSUES.index("ventricle"), None]
    deep = (2.5 * (white + fractions[TISSUES.index("brain stem"), None])).clamp(0, 1) * (1 - ventricle)
    if masks and rng.random() < 0.6:
        found = place_mask(masks[int(rng.integers(len(masks)))], white, ventricle, rng, generator)
    else:
        found = draw_plaques(int(rng.integers(3, 45)), white, ventricle, rng, generator)
    found = torch.maximum(found * deep, own)  # those that the map has are plaques, too
    if rng.random() < 0.6:
        return {"plaque": found}
    active = found * soft_step(smooth_noise(found.shape[1:], 8, generator) - rng.uniform(0.8, 2.0), 0.1)
    return {"plaque": found - active, "enhancing": active}


def _strip(inside: Tensor, rng: np.random.Generator, generator: Generator) -> tuple[Tensor, Tensor]:
    """The brain mask of a skull-stripping tool (1, X, Y, Z), bool, and the skull (X, Y, Z), a fraction.

    Clefts between gyri belong to the mask. Its boundary runs through the fluid here and through membranes and bone
    there.
    """
    half = [n // 2 for n in inside.shape[1:]]
    coarse = torch.nn.functional.interpolate(inside[None], half, mode="trilinear", align_corners=True)[0]
    wide = (blur(coarse, 2.0) > 0.12).float()
    closed = torch.maximum((blur(wide, 2.0) > 0.86).float(), (coarse > 0.5).float())
    edge = resize(blur(closed, 1.0), inside.shape[1:])
    first, second = smooth_noise(half, 4, generator, 2)
    loose, near = rng.uniform(0.15, 0.6), rng.uniform(0.1, 0.35)
    mask = edge > resize((float(loose) + 0.1 * first).clamp(0.05, 0.95)[None], inside.shape[1:])
    skull = soft_step(resize((float(near + loose) / 2 + 0.15 * second)[None], inside.shape[1:]) - edge, 0.05)
    return mask, (skull * (1 - inside))[0]


def scan(fractions: Tensor, rng: np.random.Generator, generator: Generator) -> Tensor:
    """Images (4, X, Y, Z) of the `CONTRASTS` by a drawn protocol, in arbitrary units.

    Args:
        fractions: (K, X, Y, Z) of the `NAMES` of tissues and parts of lesions, which sum to 1; they are changed.
        rng, generator: what is drawn.
    """
    shape = fractions.shape[1:]
    shown = draw_protocol(rng)
    fractions = _clothe(fractions, rng, generator)
    textures = _texture(shape, rng, generator) * (1 - fractions[[NAMES.index(n) for n in STILL]].sum(0)).clamp(min=0)
    uneven = (1 + 0.5 * smooth_noise(shape, 3, generator)[0]).clamp(0.2, 2.0)
    enhancing = fractions[NAMES.index("enhancing")]
    fluid = fractions[[NAMES.index(name) for name in ("csf", "ventricle")]].sum(0)
    flow = smooth_noise([n // 2 for n in shape], 5, generator, 2)
    grids = draw_grids(rng)
    images = []
    for name in CONTRASTS:
        signal = shown[name].signal
        white, water = (float(signal[NAMES.index(n)]) for n in ("white matter", "ventricle"))
        image = _mixed(fractions, signal)
        strength = float(rng.uniform(0.7, 2.2 if name == "flair" else 1.4))
        image += strength * _mixed(fractions, shown[name].by_t1) * textures[0]
        image += strength * _mixed(fractions, shown[name].by_t2) * textures[1]
        if name == "t1ce":
            image += (uneven - 1) * float(signal[NAMES.index("enhancing")] - signal[NAMES.index("diffuse")]) * enhancing
        if name in ("t2", "flair"):  # fluid that moves: dark in T2, not nulled in FLAIR
            moved, amount = (flow[:1], -0.6 * water) if name == "t2" else (flow[1:], 0.6 * white)
            there = soft_step(resize(moved, shape)[0] - float(rng.uniform(0.8, 3.0)), 0.4)
            image += float(amount * rng.random()) * there * fluid
        images.append(acquire(image.clamp(min=0), white, grids[name], rng, generator))
    return torch.stack(images)


def _mixed(fractions: Tensor, values: np.ndarray) -> Tensor:
    weights = torch.tensor(values, dtype=torch.float32, device=fractions.device)
    return (weights @ fractions.flatten(1)).view(fractions.shape[1:])


def _texture(shape: Sequence[int], rng: np.random.Generator, generator: Generator) -> Tensor:
    """By how much T1 and T2 differ from those of the tissue, relatively: (2, X, Y, Z), partly the same pattern."""
    fine, *coarse = rng.uniform(0.025, 0.06) * _unit(rng.uniform(0.3, 1.0, 4))
    half = [n // 2 + 1 for n in shape]
    smooth = [float(w) * smooth_noise(half, sigma, generator, 2) for w, sigma in zip(coarse, (1.5, 4.0, 12.0))]
    total = resize(torch.stack(smooth).sum(0), shape)
    total += float(fine) * smooth_noise(shape, 1.2, generator, 2)
    shared = float(rng.uniform(0.4, 1.0))
    return torch.stack([total[0], shared * total[0] + (1 - shared) * total[1]])


def _unit(weights: np.ndarray) -> np.ndarray:
    return weights / np.sqrt((weights**2).sum())


def _clothe(fractions: Tensor, rng: np.random.Generator, generator: Generator) -> Tensor:
    """What label maps lack: vessels in the sulci, a ragged plexus, pale white matter at the ventricles, dura."""
    shape = fractions.shape[1:]
    white, csf, ventricle, plexus, vessel, lesion, outside = (
        NAMES.index(n) for n in ("white matter", "csf", "ventricle", "choroid plexus", "vessel", "lesion", "outside")
    )
    first, second, membranes = smooth_noise([n // 2 for n in shape], 2.5, generator, 3)
    width = float(rng.uniform(0.08, 0.17))
    tubes = resize(torch.exp(-(first**2 + second**2) / (2 * width**2))[None], shape)[0]
    blood = (1.3 * tubes * (3 * blur(fractions[csf], 1.0)).clamp(0, 1)).clamp(0, 1)
    fractions *= 1 - blood
    fractions[vessel] += blood
    ragged = soft_step(smooth_noise(shape, 1.3, generator)[0] + float(rng.uniform(-0.8, 0.8)), 0.3)
    fractions[ventricle] += fractions[plexus] * (1 - ragged)
    fractions[plexus] *= ragged
    if rng.random() < 0.6:
        pale = float(rng.uniform(0, 1.2)) * blur(fractions[ventricle], float(rng.uniform(0.8, 2.5)))
        pale = pale.clamp(0, 0.8) * fractions[white]
        fractions[white] -= pale
        fractions[lesion] += pale
    fractions[outside] *= resize(soft_step(membranes + float(rng.uniform(-1.0, 0.3)), 0.3)[None], shape)[0]
    return fractions


def _regions(parts: Parts, ill: Tensor, kind: str, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Regions (3, X, Y, Z) bool where more than half of a voxel is ill, and which of them are known (3,)."""
    none = torch.zeros_like(ill)
    known = parts if kind == "tumour" else {}
    core = torch.stack([none, *(part for name, part in known.items() if name in CORE)]).sum(0)
    uptake = known.get("enhancing", none)
    whole = (ill > 0.5) & brain
    regions = torch.cat([whole, whole & (core > 0.5 * ill), whole & (uptake > 0.5 * ill)])
    return regions, torch.tensor([True, kind != "plaques", kind != "plaques"], device=ill.device)
