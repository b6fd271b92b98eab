import numpy as np
import pytest
import torch

from bundle.phantoms.label_maps import TISSUES
from bundle.phantoms.lesions import CORE, KINDS, Tumour, draw_plaques, draw_tumour, grow, place_mask
from tests.phantoms.heads import ellipsoid, tissues

small = torch.from_numpy(tissues(96))
WHITE, VENTRICLE = ((small == TISSUES.index(name)).float()[None] for name in ("white matter", "ventricle"))


def sources(seed=0):
    return np.random.default_rng(seed), torch.Generator().manual_seed(seed)


def test_sizes_and_kinds_of_tumours():
    rng, _ = sources()
    drawn = [draw_tumour(rng) for _ in range(800)]
    reach = np.array([tumour.radius + tumour.oedema for tumour in drawn])
    assert reach.min() >= 4 and reach.max() <= 45 and np.percentile(reach, 5) < 15 and np.percentile(reach, 95) > 38
    for kind, share in KINDS.items():
        assert np.mean([tumour.kind == kind for tumour in drawn]) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_tumour(kind):
    solid = WHITE + (small == TISSUES.index("cortex"))
    centre = torch.tensor([60.0, 48.0, 48.0])
    parts = grow(Tumour(kind, 10.0, 8.0), centre, WHITE, solid, *sources(3))
    total = torch.stack(list(parts.values())).sum(0)
    assert float(total.max()) <= 1 + 1e-4 and min(float(part.min()) for part in parts.values()) >= -1e-4
    core = torch.stack([part for name, part in parts.items() if name in CORE]).sum(0)
    assert 1500 < float(core.sum()) < 9000  # a sphere of 10 mm has 4189, cut by the ventricle
    assert float((total * (1 - solid)).max()) < 1e-4
    assert float(parts["oedema"].sum()) > 300
    uptake = float(parts["enhancing"].sum() / core.sum())
    low, high = {"ring": (0.2, 1), "solid": (0.6, 1), "diffuse": (0, 0.3), "cystic": (0.1, 0.8)}[kind]
    assert low <= uptake <= high


def test_plaques_lie_in_white_matter_near_the_ventricles():
    found = draw_plaques(20, WHITE, VENTRICLE, *sources())
    assert 300 < float(found.sum()) < 20000 and float(found.max()) <= 1
    assert float((found * (WHITE + VENTRICLE)).sum() / found.sum()) > 0.8
    assert not draw_plaques(5, torch.zeros_like(WHITE), VENTRICLE, *sources()).any()


def test_real_mask_is_placed_in_white_matter_beside_the_ventricles():
    mask = np.zeros((50, 40, 30), np.uint8)
    for x in (10, 40):
        mask[ellipsoid(mask.shape, (x, 20, 15), (4, 12, 5))] = 255
    found = place_mask(torch.from_numpy(mask), WHITE, VENTRICLE, *sources())
    assert found.shape == WHITE.shape and float(found.max()) <= 1
    assert float(found.sum()) == pytest.approx(mask.sum() / 255, rel=0.35)
    assert float((found * WHITE).sum() / found.sum()) > 0.75
