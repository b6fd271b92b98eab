"""Whole generated subjects, on a small head; what each contrast shows is measured after the pipeline's scaling."""

import numpy as np
import pytest
import torch

from bundle.data.contrasts import select
from bundle.phantoms.generate import KINDS, Drawn, draw_subject, scan
from bundle.phantoms.label_maps import TISSUES, read_label_map, read_lesion_mask
from bundle.phantoms.scanner import CONTRASTS, NAMES
from bundle.transforms.intensity import limits
from tests.phantoms.heads import ellipsoid, tissues

small = torch.from_numpy(tissues())


def draw(seed: int, kind: str, head: torch.Tensor = small, masks=()) -> Drawn:
    return draw_subject(head, torch.Generator().manual_seed(seed), masks, [float(kind == name) for name in KINDS])


def scaled(images: torch.Tensor, brain: np.ndarray) -> dict[str, np.ndarray]:
    rows = {row.name: row for row in select(CONTRASTS)}
    found = {}
    for name, image in zip(CONTRASTS, images.numpy()):
        low, high, _ = limits(image[brain], rows[name])
        found[name] = np.clip((image - low) / (high - low), 0, 1)
    return found


def scans_of(parts: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Scaled scans of the head with lesions in the place of its tissues."""
    fractions = torch.zeros(len(NAMES), *small.shape)
    for number in range(len(TISSUES)):
        fractions[number] = small == number
    for name, part in parts.items():
        fractions[:, part] = 0
        fractions[NAMES.index(name), part] = 1
    images = scan(fractions, np.random.default_rng(seed), torch.Generator().manual_seed(seed))
    return scaled(images, ellipsoid(small.shape, [31.5] * 3, 64 * np.array([0.38, 0.42, 0.36])))


@pytest.mark.parametrize("kind", KINDS)
def test_subject_is_complete(kind):
    subject = draw(1, kind)
    assert subject.kind == kind and subject.images.shape == (4, *subject.brain.shape)
    assert subject.images.dtype == torch.float32 and bool(subject.images.isfinite().all())
    assert torch.equal(subject.images > 0, subject.brain.expand(4, -1, -1, -1))
    whole, core, uptake = subject.regions
    assert not bool((whole & ~subject.brain).any() or (core & ~whole).any() or (uptake & ~core).any())
    assert bool(whole.any()) == (kind != "none")
    assert subject.valid.tolist() == ([True, False, False] if kind == "plaques" else [True, True, True])
    assert kind == "tumour" or not bool(core.any())


def test_brain_mask_is_that_of_a_skull_stripping_tool():
    truth = int(np.isin(small, [TISSUES.index(n) for n in ("cortex", "white matter", "ventricle")]).sum())
    sizes = [int(draw(seed, "none").brain.sum()) / truth for seed in range(8)]
    assert min(sizes) > 0.7 and max(sizes) < 1.6 and np.ptp(sizes) > 0.1


def test_same_seed_same_bytes():
    one, again, other = (draw(seed, "tumour") for seed in (4, 4, 5))
    assert torch.equal(one.images, again.images) and torch.equal(one.regions, again.regions)
    assert one.images.shape != other.images.shape or not torch.equal(one.images, other.images)


def test_kinds_follow_the_mix():
    kinds = [
        draw_subject(small[:40, :40, :40], torch.Generator().manual_seed(s), mix=(1, 3, 0)).kind for s in range(24)
    ]
    assert 10 < kinds.count("plaques") < 24 and "none" not in kinds


@pytest.mark.parametrize("seed", range(6))
def test_fluid_is_dark_in_flair_and_brightest_in_t2(seed):
    found = scans_of({}, seed)
    deep = ellipsoid(small.shape, (31.5 - 5.8, 31.5, 31.5), (2.5, 7, 3.5))
    white = (small == TISSUES.index("white matter")).numpy()
    assert np.median(found["flair"][deep]) < 0.15 and np.median(found["t2"][deep]) > 0.6
    assert np.median(found["t2"][white]) < 0.6 * np.median(found["t2"][deep])
    assert np.median(found["t1"][deep]) < 0.5 * np.median(found["t1"][white])
    assert np.median(found["flair"][white]) == pytest.approx(0.38, abs=0.08)


@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_bright_in_flair_and_uptake_in_t1ce_alone(seed):
    parts = {
        "plaque": ellipsoid(small.shape, (45, 24, 32), (4, 4, 4)),
        "enhancing": ellipsoid(small.shape, (45, 42, 32), (4, 4, 4)),
    }
    found = scans_of(parts, seed)
    white = (small == TISSUES.index("white matter")).numpy() & ~parts["plaque"] & ~parts["enhancing"]
    ratio = {
        part: {name: np.median(found[name][where]) / np.median(found[name][white]) for name in CONTRASTS}
        for part, where in parts.items()
    }
    assert ratio["plaque"]["flair"] > 1.1 and ratio["plaque"]["t2"] > 1.15
    assert ratio["plaque"]["t1"] < 0.95 and ratio["plaque"]["t1ce"] < 1
    assert ratio["enhancing"]["t1"] < 1 and ratio["enhancing"]["t1ce"] > 1.1 * ratio["enhancing"]["t1"]


def test_texture_is_shared_by_the_contrasts():
    white = ellipsoid(small.shape, (46, 31.5, 31.5), (5, 9, 8))
    related = []
    for seed in range(6):
        found = scans_of({}, seed)
        related.append(np.corrcoef([found[name][white] for name in CONTRASTS])[0])
    t1ce, t2 = np.mean(related, axis=0)[[1, 2]]
    assert t1ce > 0.15 and t2 < 0  # a longer T1 goes with a longer T2


def test_published_head_and_lesions(label_maps):
    head = torch.from_numpy(read_label_map(label_maps / "synthseg" / "C15.nii.gz"))
    mask = torch.from_numpy(read_lesion_mask(label_maps / "ms_lesions" / "patient05.nii.gz"))
    subject = draw(3, "plaques", head, [mask])
    brain = subject.brain.numpy()
    assert 0.9e6 < brain.sum() < 1.9e6
    found = scaled(subject.images, brain)
    plaques = subject.regions[0].numpy()
    assert 1000 < plaques.sum() < 100_000
    assert np.median(found["flair"][plaques]) > 1.15 * np.median(found["flair"][brain])
    assert 0.03 < (found["t2"] > 0.6)[brain].mean() < 0.35
