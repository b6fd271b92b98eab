import torch
from monai.data import MetaTensor

from bundle.transforms.regions import RegionsOfLabeld

IMAGE = torch.zeros(4, 3, 4, 5)


def label(*numbers):
    values = torch.zeros(1, 3, 4, 5)
    values[0, 0, 0, : len(numbers)] = torch.tensor(numbers, dtype=torch.float32)
    return MetaTensor(values)


def test_regions_of_a_tumour():
    item = RegionsOfLabeld()({"image": IMAGE, "label": label(1, 2, 4), "label_convention": "brats"})
    assert "label" not in item and item["regions"].shape == (3, 3, 4, 5) and item["regions"].dtype == torch.uint8
    assert item["regions"][:, 0, 0, :3].tolist() == [[1, 1, 1], [1, 0, 1], [0, 0, 1]]  # WT, TC, ET of 1, 2, 4
    assert item["regions"].sum() == 6
    assert item["valid"].tolist() == [1, 1, 1] and item["valid"].dtype == torch.float32


def test_a_lesion_that_is_no_tumour_has_a_whole_only():
    item = RegionsOfLabeld()({"image": IMAGE, "label": label(1, 1), "label_convention": "binary"})
    assert item["valid"].tolist() == [1, 0, 0]
    assert item["regions"].flatten(1).sum(1).tolist() == [2, 0, 0]


def test_the_convention_decides_what_a_number_means():
    """1 is oedema in the Decathlon, necrosis in BraTS: only the latter belongs to the core."""
    for convention, core in (("decathlon", 0), ("brats", 1)):
        item = RegionsOfLabeld()({"image": IMAGE, "label": label(1, 2, 3), "label_convention": convention})
        assert item["regions"][1, 0, 0, 0] == core


def test_without_a_label_nothing_is_known():
    item = RegionsOfLabeld()({"image": IMAGE})
    assert item["regions"].shape == (3, 3, 4, 5) and not item["regions"].any()
    assert item["valid"].tolist() == [0, 0, 0]
