"""The network's input: contrasts in channel order, then their presence."""

import torch
from monai.data import MetaTensor

from bundle.transforms.stack import StackContrastsd

CONTRASTS = ["t1", "t1ce", "t2", "flair"]


def item():
    affine = torch.diag(torch.tensor([-1.0, 1.0, 2.0, 1.0]))
    scans = {
        name: MetaTensor(torch.full((1, 4, 5, 6), value)) for name, value in (("flair", 0.4), ("t1", 0.1), ("t2", 0.3))
    }
    return {
        **scans,
        "image": MetaTensor(scans["t1"].as_tensor(), affine=affine, applied_operations=[{"class": "Flip"}]),
    }


def test_channels():
    data = StackContrastsd(CONTRASTS)(item())
    assert data["image"].shape == (8, 4, 5, 6)
    assert data["image"][:, 0, 0, 0].allclose(torch.tensor([0.1, 0, 0.3, 0.4, 1, 0, 1, 1]))
    assert torch.equal(data["image"].affine, item()["image"].affine)
    assert data["image"].applied_operations == [{"class": "Flip"}]
    assert "t1" not in data


def test_hidden_is_missing():
    data = StackContrastsd(CONTRASTS, hide=["flair", "t1ce"])({**item(), "t1ce": "a path that was not loaded"})
    assert data["image"][:, 3, 4, 5].allclose(torch.tensor([0.1, 0, 0.3, 0, 1, 0, 1, 0]))


def test_the_brain_as_last_channel():
    brain = MetaTensor(torch.zeros(1, 4, 5, 6, dtype=torch.uint8))
    brain[:, 1:3] = 1
    image = StackContrastsd(CONTRASTS, with_brain=True)({**item(), "brain": brain})["image"]
    assert image.shape == (9, 4, 5, 6) and image.dtype == torch.float32
    assert torch.equal(image[8], brain[0].float()) and image[:8, 0, 0, 0].any()


def test_any_number_of_contrasts():
    data = StackContrastsd(["flair", "t2"])(item())
    assert data["image"][:, 0, 0, 0].allclose(torch.tensor([0.4, 0.3, 1, 1]))


def test_a_scan_is_absent_in_the_slices_that_it_lacks():
    data = item()
    data["flair"][..., :2] = 0
    data["flair"][:, 1:, :, 2] = 0  # a slice of which it shows a part
    data["t2"][..., 4] = 0
    presence = StackContrastsd(CONTRASTS)(data)["image"][4:]
    assert torch.equal(presence, presence[:, :1, :1].expand(-1, 4, 5, -1))
    assert presence[:, 0, 0].tolist() == [[1] * 6, [0] * 6, [1, 1, 1, 1, 0, 1], [0, 0, 1, 1, 1, 1]]
