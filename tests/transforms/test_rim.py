"""The rim of the brain keeps its brightness."""

import torch
from monai.data import MetaTensor

from bundle.transforms.rim import RestoreRimd


def test_constant_stays_constant():
    share = MetaTensor(torch.tensor([0, 0.2, 0.5, 0.6, 0.9, 1.0]).reshape(1, 6, 1, 1))
    item = RestoreRimd(["pred", "uncertainty"])({"pred": 0.7 * share.repeat(2, 1, 1, 1), "brain": share})
    expected = torch.tensor([0, 0, 0, 0.7, 0.7, 0.7])
    assert item["pred"].shape == (2, 6, 1, 1)
    assert item["pred"][0, :, 0, 0].allclose(expected)
    assert item["brain"].flatten().tolist() == [0, 0, 0, 1, 1, 1] and item["brain"].dtype == torch.uint8
