"""Slices have the network's size, the brain is in their middle, and nothing is lost."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from bundle.transforms.crop import CropToBraind


def item(shape, box):
    brain = torch.zeros(1, *shape, dtype=torch.uint8)
    brain[(0, *(slice(*line) for line in box))] = 1
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    affine = torch.eye(4, dtype=torch.float64)
    return {"image": MetaTensor(image, affine=affine), "brain": MetaTensor(brain, affine=affine)}


@pytest.mark.parametrize(
    ("shape", "box", "size"),
    [
        ((240, 240, 155), ((50, 190), (30, 200), (0, 140)), (192, 192, 155)),  # cropped
        ((182, 218, 91), ((20, 160), (20, 196), (3, 80)), (192, 192, 91)),  # padded and cropped
        ((100, 90, 20), ((0, 5), (80, 90), (3, 8)), (192, 192, 20)),  # at the border
        ((256, 256, 40), ((20, 220), (11, 249), (0, 40)), (208, 240, 40)),  # a head that does not fit
        ((256, 256, 4), ((0, 190), (0, 191), (0, 4)), (192, 208, 4)),
        ((240, 240, 192), ((50, 190), (30, 200), (60, 192)), (192, 192, 192)),  # not too deep
        ((240, 240, 256), ((50, 190), (30, 200), (110, 250)), (192, 192, 192)),  # with the neck
        ((240, 240, 200), ((50, 190), (30, 200), (0, 199)), (192, 192, 208)),
    ],
)
def test_size_and_way_back(shape, box, size):
    data = item(shape, box)
    crop = Compose([CropToBraind()])
    cut = crop(data)
    assert cut["image"].shape == (2, *size) and cut["brain"].shape == (1, *size)
    assert cut["brain"].sum() == data["brain"].sum()
    for axis in (0, 1, 2) if shape[2] > 192 else (0, 1):
        line = np.flatnonzero(cut["brain"][0].numpy().any(axis=tuple({0, 1, 2} - {axis})))
        assert abs(line[0] - (size[axis] - 1 - line[-1])) <= 1
    # the affine went along: a voxel shows the place that it showed
    at = torch.nonzero(cut["brain"][0])[0]
    place = (cut["image"].affine @ torch.cat([at, torch.ones(1)]).double())[:3].long()
    assert torch.equal(cut["image"][(slice(None), *at)].as_tensor(), data["image"][(slice(None), *place)].as_tensor())
    # the way back, for another tensor on the same grid
    cut["pred"] = MetaTensor(cut["image"].as_tensor() * cut["brain"].as_tensor())
    back = Invertd("pred", crop, orig_keys="image", nearest_interp=False)(cut)["pred"]
    assert torch.equal(back.as_tensor(), (data["image"] * data["brain"]).as_tensor())
    assert torch.equal(back.affine, data["image"].affine)
