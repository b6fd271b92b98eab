import numpy as np
import pytest
import torch

from bundle.phantoms.label_maps import TISSUES
from bundle.phantoms.shape import LANDMARKS, Push, Shape, upright
from tests.phantoms.heads import tissues


def draw(seed: int = 0) -> Shape:
    return Shape(torch.from_numpy(tissues()), np.random.default_rng(seed), torch.Generator().manual_seed(seed))


def test_fractions_sum_to_one_and_keep_the_volumes():
    found = draw().fractions(len(TISSUES), len(TISSUES) + 2)
    assert found.shape[0] == len(TISSUES) + 2 and not found[-2:].any()
    torch.testing.assert_close(found.sum(0), torch.ones(found.shape[1:]), atol=1e-5, rtol=0)
    assert float(found.min()) > -1e-5
    for name in ("white matter", "cortex"):
        before = (tissues() == TISSUES.index(name)).sum()
        assert float(found[TISSUES.index(name)].sum()) == pytest.approx(before, rel=0.35), name
    assert not found[TISSUES.index("thalamus")].any()


def test_no_two_shapes_are_alike():
    one, other = (draw(seed).fractions(len(TISSUES), len(TISSUES))[1] > 0.5 for seed in (1, 2))
    size = [min(a, b) for a, b in zip(one.shape, other.shape)]
    one, other = (part[: size[0], : size[1], : size[2]] for part in (one, other))
    assert 0.3 < float((one & other).sum() / (one | other).sum()) < 0.95


def test_mass_moves_tissue_away_from_its_centre():
    plain, pushed = draw(), draw()
    centre = pushed.nodes[:, 8, 8, 8]
    pushed.push(Push(centre, reach=12.0, strength=4.0))
    offset = pushed.nodes - centre.view(3, 1, 1, 1)
    radius = offset.norm(dim=0)
    moved = ((pushed.places - plain.places) * -offset / radius.clamp(min=1e-3)).sum(0)
    ring = (radius > 10) & (radius < 14)
    # the source of a voxel lies nearer to the centre than the voxel: tissue has moved outwards
    assert 2.0 < float(moved[ring].mean()) < 5.0
    assert float(moved[radius > 45].abs().max()) < 1.0


def test_heads_are_set_upright():
    angle = np.radians(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    shares = {}
    for name, place in LANDMARKS.items():
        share = torch.zeros(1, 48, 48, 48)
        at = np.round(turn @ np.array(place) / 4 + 24).astype(int)
        share[(0, *at)] = 1
        shares[name] = share
    np.testing.assert_allclose(upright(shares), turn, atol=0.06)
    np.testing.assert_array_equal(upright({**shares, "cortex": torch.zeros(1, 48, 48, 48)}), np.eye(3))
