"""Subjects drawn from label maps: another shape, a lesion, a protocol; on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from bundle.phantoms.fields import blur, resize, smooth_noise, soft_step
from bundle.phantoms.label_maps import TISSUES
from bundle.phantoms.lesions import CORE, Parts, Tumour, draw_plaques, draw_tumour, grow, place_mask
from bundle.phantoms.scanner import CONTRASTS, NAMES, Shown, acquire, draw_protocol
from bundle.phantoms.shape import NODES, Push, Shape

KINDS = ("tumour", "plaques", "none")
MIX = (0.4, 0.4, 0.2)  # how often each of them
AROUND = [TISSUES.index(name) for name in ("outside", "csf", "vessel")]
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
    size = tissues.shape
    padding = [pad for n in reversed(size) for pad in (0, -(n - 1) % NODES)]
    fractions, tumour, centre = _anatomy(torch.nn.functional.pad(tissues, padding), kind, rng, generator)
    inside = 1 - sum(fractions[number, None] for number in AROUND)
    parts: Parts = {}
    if tumour is not None and centre is not None:
        fluid = fractions[[TISSUES.index("ventricle"), TISSUES.index("csf")]].sum(0, keepdim=True)
        parts = grow(tumour, centre, fractions[WHITE].sum(0, keepdim=True), inside * (1 - fluid), rng, generator)
    elif kind == "plaques":
        parts = _plaques(fractions, masks, rng, generator)
    brain = _strip(inside, rng, generator)
    ill = sum(parts.values(), torch.zeros_like(inside))
    fractions[: len(TISSUES)] *= (1 - ill).clamp(0, 1)
    for name, part in parts.items():
        fractions[NAMES.index(name)] = part[0]
    images = _scan(fractions, rng, generator) * brain
    regions, valid = _regions(parts, ill, kind, brain)
    cut = (slice(None), *(slice(n) for n in size))
    return Drawn(images[cut], brain[cut][0], regions[cut], valid, kind)


def _anatomy(
    tissues: Tensor, kind: str, rng: np.random.Generator, generator: Generator
) -> tuple[Tensor, Tumour | None, Tensor | None]:
    """Fractions (K, X, Y, Z) of the `NAMES` of another person, and a tumour and its place (3,), if there is one.

    Only the `TISSUES` are there yet, no part of a lesion that is drawn.
    """
    if rng.random() < 0.5:
        tissues = tissues.flip(0)
    if kind == "none" or (kind == "tumour" and rng.random() < 0.5):  # without the lesions that the map has
        tissues = torch.where(tissues == TISSUES.index("lesion"), TISSUES.index("white matter"), tissues)
    inside = [number for number in range(len(TISSUES)) if number not in AROUND]
    shape = Shape(tissues, inside, TISSUES.index("ventricle"), rng, generator)
    if kind != "tumour":
        return shape.fractions(len(TISSUES), len(NAMES)), None, None
    tumour = draw_tumour(rng)
    likely = sum(weight * shape.coarse([TISSUES.index(name)]) for name, weight in GROWS.items())
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
    if rng.random() < 0.5:  # the map's own lesions are plaques, too
        found = torch.maximum(found, own)
    found = found * deep
    if rng.random() < 0.6:
        return {"plaque": found}
    active = found * soft_step(smooth_noise(found.shape[1:], 8, generator) - rng.uniform(0.8, 2.0), 0.1)
    return {"plaque": found - active, "enhancing": active}


def _strip(inside: Tensor, rng: np.random.Generator, generator: Generator) -> Tensor:
    """The mask (1, X, Y, Z) of a skull-stripping tool: clefts are filled, its boundary is tight here and loose there."""
    half = [n // 2 for n in inside.shape[1:]]
    coarse = torch.nn.functional.interpolate(inside[None], half, mode="trilinear", align_corners=True)[0]
    wide = (blur(coarse, 2.0) > 0.12).float()
    closed = torch.maximum((blur(wide, 2.0) > 0.86).float(), (coarse > 0.5).float())
    edge = resize(blur(closed, 1.0), inside.shape[1:])
    limit = float(rng.uniform(0.2, 0.6)) + 0.1 * smooth_noise(inside.shape[1:], 8, generator)
    return edge > limit.clamp(0.05, 0.95)


def _scan(fractions: Tensor, rng: np.random.Generator, generator: Generator) -> Tensor:
    """Images (4, X, Y, Z) of tissue fractions (K, X, Y, Z)."""
    shape = fractions.shape[1:]
    shown = draw_protocol(rng)
    fractions = _flow(_clothe(fractions, rng, generator), rng, generator)
    textures = _texture(shape, rng, generator) * (1 - fractions[[NAMES.index(n) for n in STILL]].sum(0)).clamp(min=0)
    uneven = (1 + 0.5 * smooth_noise(shape, 3, generator)[0]).clamp(0.2, 2.0)
    enhancing = fractions[NAMES.index("enhancing")]
    images = []
    for name in CONTRASTS:
        image = _mixed(fractions, shown[name].signal)
        image += _mixed(fractions, shown[name].by_t1) * textures[0] + _mixed(fractions, shown[name].by_t2) * textures[1]
        if name == "t1ce":
            gain = float(shown["t1ce"].signal[NAMES.index("enhancing")] - shown["t1ce"].signal[NAMES.index("diffuse")])
            image += (uneven - 1) * gain * enhancing
        reference = float(shown[name].signal[NAMES.index("white matter")])
        images.append(acquire(image.clamp(min=0), reference, rng, generator))
    return torch.stack(images)


def _mixed(fractions: Tensor, values: np.ndarray) -> Tensor:
    weights = torch.tensor(values, dtype=torch.float32, device=fractions.device)
    return (weights @ fractions.flatten(1)).view(fractions.shape[1:])


def _texture(shape: Sequence[int], rng: np.random.Generator, generator: Generator) -> Tensor:
    """By how much T1 and T2 differ from those of the tissue, relatively: (2, X, Y, Z), partly the same pattern."""
    fine, *coarse = rng.uniform(0.02, 0.05) * _unit(rng.uniform(0.3, 1.0, 4))
    half = [n // 2 + 1 for n in shape]
    total = resize(sum(float(w) * smooth_noise(half, s, generator, 2) for w, s in zip(coarse, (1.5, 4.0, 12.0))), shape)
    total += float(fine) * smooth_noise(shape, 1.2, generator, 2)
    shared = float(rng.uniform(0.4, 1.0))
    return torch.stack([total[0], shared * total[0] + (1 - shared) * total[1]])


def _unit(weights: np.ndarray) -> np.ndarray:
    return weights / np.sqrt((weights**2).sum())


def _clothe(fractions: Tensor, rng: np.random.Generator, generator: Generator) -> Tensor:
    """Vessels in the sulci, and what is left of the membranes and the skull outside."""
    csf, vessel = NAMES.index("csf"), NAMES.index("vessel")
    first, second = smooth_noise(fractions.shape[1:], 5, generator, 2)
    tubes = torch.exp(-(first**2 + second**2) / float(2 * rng.uniform(0.1, 0.17) ** 2))
    sulci = (3 * blur(fractions[csf], 1.0)).clamp(0, 1)
    blood = (1.3 * tubes * sulci).clamp(0, 1)
    fractions *= 1 - blood
    fractions[vessel] += blood
    fractions[0] *= soft_step(smooth_noise(fractions.shape[1:], 4, generator)[0] + float(rng.uniform(-0.8, 0.6)), 0.3)
    return fractions


def _flow(fractions: Tensor, rng: np.random.Generator, generator: Generator) -> Tensor:
    return fractions


def _regions(parts: Parts, ill: Tensor, kind: str, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Regions (3, X, Y, Z) bool where more than half of a voxel is ill, and which of them are known (3,)."""
    none = torch.zeros_like(ill)
    core = sum((parts[name] for name in CORE if name in parts and kind == "tumour"), none)
    uptake = parts.get("enhancing", none) if kind == "tumour" else none
    whole = (ill > 0.5) & brain
    regions = torch.cat([whole, whole & (core > 0.5 * ill), whole & (uptake > 0.5 * ill)])
    return regions, torch.tensor([True, kind != "plaques", kind != "plaques"], device=ill.device)
