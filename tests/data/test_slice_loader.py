"""Batches of packed subjects: right planes, right places, reproducible."""

from __future__ import annotations

import pytest
import torch

from bundle.data.packed import BRAIN_BIT, Packed
from bundle.data.slice_loader import AXIAL, CORONAL, SAGITTAL, SliceLoader


@pytest.fixture
def subjects() -> Packed:
    """Two subjects of 48x48x32: contrasts are x, y, z and 1 as fractions of the grid; the second lacks the last."""
    size = (48, 48, 32)
    axes = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    brain = torch.zeros(size, dtype=torch.uint8)
    brain[8:40, 4:44, 6:26] = BRAIN_BIT | 1
    ramps = [(axis.float() / (n - 1) * 255).round().to(torch.uint8) for axis, n in zip(axes, size)]
    volume = torch.stack([*ramps, torch.full(size, 255, dtype=torch.uint8)]) * (brain > 0)
    voxels = torch.cat([volume, brain[None]])[None].repeat(2, 1, 1, 1, 1)
    voxels[1, 3] = 0
    return Packed(
        voxels,
        torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]]),
        torch.tensor([[1.0, 0, 0], [0, 0, 0]]),
        torch.tensor([[[8, 4, 6], [40, 44, 26]]]).repeat(2, 1, 1),
        ("a", "b"),
    )


def test_a_batch_has_what_the_stages_read(subjects):
    loader = SliceLoader(subjects, "cpu", batch_size=12, batches=2, window=32)
    loader.reseed(0)
    batches = list(loader)
    assert len(loader) == len(batches) == 2
    for batch in batches:
        shapes = {key: tuple(value.shape) for key, value in batch.items()}
        assert shapes["image"] == shapes["seen"] == (12, 4, 32, 32)
        assert shapes["regions"] == (12, 3, 32, 32) and shapes["brain"] == (12, 1, 32, 32)
        assert all(value.dtype == torch.float32 for value in batch.values())
        image, seen = batch["image"], batch["seen"]
        assert image.min() >= 0 and image.max() <= 1 and seen.min() >= 0 and seen.max() <= 1
        assert not image[(batch["brain"] == 0).expand_as(image)].any() and not seen[image == 0].any()
        assert torch.equal(batch["regions"][:, :1], batch["brain"])  # the lesion fills this brain
        assert (batch["presence"] <= batch["exists"]).all() and batch["presence"].any(1).all()
        missing = batch["exists"][:, 3] == 0
        assert not image[missing, 3].any() and not (batch["valid"][missing]).any()


def test_the_same_seed_gives_the_same_batches(subjects):
    loader = SliceLoader(subjects, "cpu", batch_size=6, window=32)
    loader.reseed(3)
    first, other = loader.batch(), loader.batch()
    loader.reseed(3)
    again = loader.batch()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize(
    ("axis", "constant", "rows", "columns"), [(AXIAL, 2, 0, 1), (CORONAL, 1, 0, 2), (SAGITTAL, 0, 2, 1)]
)
def test_a_plane_lies_as_inference_cuts_it(subjects, axis, constant, rows, columns):
    """A coronal slice is (X, Z), a sagittal one (Z, Y)."""
    loader = SliceLoader(subjects, "cpu", batch_size=1)
    one = loader.cut(axis, torch.tensor([0]), torch.tensor([20]))[0].float()
    inside = one[4] > 0
    assert one[constant][inside].unique().numel() == 1
    there = inside.nonzero()
    low, high = there.amin(0), there.amax(0)
    along = one[rows, :, low[1]][low[0] : high[0] + 1]
    across = one[columns, low[0], :][low[1] : high[1] + 1]
    assert (along.diff() > 0).all() and (across.diff() > 0).all()


def test_subjects_are_drawn_by_their_weights(subjects):
    loader = SliceLoader(subjects, "cpu", batch_size=40, window=32, weights=[0.0, 1.0])
    loader.reseed(0)
    assert not loader.batch()["exists"][:, 3].any()


def test_every_subset_of_what_exists_is_drawn(subjects):
    loader = SliceLoader(subjects, "cpu")
    loader.reseed(0)
    drawn = loader.draw_presence(torch.tensor([[1.0, 0, 1, 0]]).repeat(600, 1))
    counts = {
        tuple(row): int((drawn == torch.tensor(row)).all(1).sum())
        for row in ([1.0, 0, 0, 0], [0.0, 0, 1, 0], [1.0, 0, 1, 0])
    }
    assert sum(counts.values()) == 600 and min(counts.values()) > 150
