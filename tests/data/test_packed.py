"""Packed subjects hold what was prepared, to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.data.packed import BRAIN_BIT, gather, load_packed, pack, save_packed
from bundle.errors import InputError


def prepared(shape=(20, 24, 18), box=((3, 17), (2, 21), (4, 15))) -> dict:
    """A subject whose brain is a box, its last contrast missing, with a lesion in its first corner."""
    rng = np.random.default_rng(0)
    brain = np.zeros((1, *shape), bool)
    brain[(0, *(slice(*ends) for ends in box))] = True
    image = rng.random((4, *shape), dtype=np.float32) * brain
    image[3] = 0
    regions = np.zeros((3, *shape), np.uint8)
    regions[0, 3:6, 2:5, 4:7] = 1
    regions[2, 3, 2, 4] = 1
    return {
        "image": image, "brain": brain, "regions": regions,
        "exists": np.array([1, 1, 1, 0.0]), "valid": np.array([1, 0, 1.0]),
    }  # fmt: skip


def test_voxels_and_masks_come_back():
    item = prepared()
    packed = gather({"a": pack(item)})
    assert packed.voxels.shape == (1, 5, 16, 32, 16) and packed.voxels.dtype == torch.uint8
    box = tuple(slice(int(a), int(b)) for a, b in zip(*packed.corners[0]))
    assert [s.stop - s.start for s in box] == [14, 19, 11]
    image = packed.voxels[(0, slice(0, 4), *box)].float() / 255
    assert np.abs(image.numpy() - item["image"][:, 3:17, 2:21, 4:15]).max() <= 0.5 / 255 + 1e-6
    bits = packed.voxels[(0, 4, *box)]
    assert (bits & BRAIN_BIT).bool().all() and not packed.voxels[0, 4].sub(0)[:, :6].any()
    assert [int((bits >> k & 1).sum()) for k in range(3)] == [27, 0, 1]
    assert packed.exists[0].tolist() == [1, 1, 1, 0] and packed.valid[0].tolist() == [1, 0, 1]


def test_files_are_named_after_the_subjects_and_chosen_by_name(tmp_path):
    for name, box in {"b": ((3, 17), (2, 21), (4, 15)), "a": ((0, 20), (0, 24), (0, 18))}.items():
        save_packed(prepared(box=box), tmp_path / f"{name}.npz")
    packed = load_packed(sorted(tmp_path.glob("*.npz")))
    assert packed.names == ("a", "b") and packed.voxels.shape == (2, 5, 32, 32, 32)
    assert packed.select(["b"]).corners.tolist() == packed.corners[1:].tolist()
    with pytest.raises(InputError, match="subject c is not among the packed ones"):
        packed.select(["c"])
    with pytest.raises(InputError, match="no packed subjects"):
        load_packed([])
