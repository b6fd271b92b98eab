"""Deep CSF, white matter and the contrast of lesions in a head whose tissues are known."""

import math

import pytest
import torch

from bundle.metrics.tissues import contrast_kept, deep_csf, mean_difference, white_matter

SHAPE = (70, 80, 64)
TISSUES = {  # white matter, grey matter, CSF, lesion
    "t1": (0.8, 0.6, 0.1, 0.5),
    "t1ce": (0.45, 0.33, 0.05, 0.3),
    "t2": (0.25, 0.35, 0.9, 0.6),
    "flair": (0.36, 0.45, 0.04, 0.7),
}


def box(start, stop):
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[tuple(slice(first, last) for first, last in zip(start, stop))] = True
    return mask


BRAIN = box((5, 5, 4), (65, 75, 60))
WHITE = box((10, 10, 9), (60, 70, 55))
VENTRICLE = box((28, 30, 26), (40, 50, 38))
CISTERN = box((20, 55, 28), (24, 59, 32))  # deep, but smaller
SULCUS = box((5, 30, 20), (12, 50, 44))  # larger, but shallow
LESION = box((44, 36, 26), (50, 44, 34))


def head(noise=0.01):
    generator = torch.Generator().manual_seed(0)
    images = {}
    for name, (white, grey, csf, lesion) in TISSUES.items():
        image = torch.where(WHITE, white, torch.full(SHAPE, grey))
        image[VENTRICLE | CISTERN | SULCUS], image[LESION] = csf, lesion
        images[name] = (image + noise * torch.randn(SHAPE, generator=generator)).clamp(0, 1) * BRAIN
    return images


@pytest.mark.parametrize("target", TISSUES)
def test_the_ventricle_is_found_without_the_target(target):
    images = head()
    expected = box((29, 31, 27), (39, 49, 37))  # eroded by a voxel
    assert torch.equal(deep_csf(images, BRAIN, None, target), expected)
    images[target] = torch.rand(SHAPE) * BRAIN
    assert torch.equal(deep_csf(images, BRAIN, None, target), expected)
    other = next(name for name in TISSUES if name != target)
    images[other] = torch.rand(SHAPE) * BRAIN
    assert not torch.equal(deep_csf(images, BRAIN, None, target), expected)


def test_ventricles_that_are_not_found():
    images = head()
    assert not deep_csf(images, BRAIN, VENTRICLE, "t2").any()  # a cyst of the lesion; the cistern is too small
    assert not deep_csf({"pd": images["t2"]}, BRAIN, None, "pd").any()
    assert deep_csf({"t2": images["t2"]}, BRAIN, None, "t2").sum() == 10 * 18 * 10  # asked, since there is no other
    bright = {**images, "flair": torch.where(VENTRICLE, 0.5, images["flair"])}  # not CSF: not dark in FLAIR
    assert not deep_csf(bright, BRAIN, None, "t2").any() and deep_csf(bright, BRAIN, None, "flair").any()


@pytest.mark.parametrize(("target", "by"), [("flair", "t1"), ("t1", "t1ce")])
def test_white_matter_is_bright_in_t1_far_from_the_lesion(target, by):
    images = head()
    found = white_matter(images, BRAIN, LESION, target)
    assert found.sum() > 10_000 and not found[~WHITE | VENTRICLE | CISTERN | LESION].any()
    assert not found[41:53, 36:44, 26:34].any() and found[54:58, 36:44, 26:34].any()  # 3 mm around the lesion
    images[by] = torch.zeros(SHAPE)
    images[by][WHITE] = 1 - images["t2"][WHITE]
    assert not torch.equal(white_matter(images, BRAIN, LESION, target), found)


def test_white_matter_is_dark_in_t2():
    images = {name: head()[name] for name in ("t2", "flair")}
    found = white_matter(images, BRAIN, LESION, "flair")
    assert found.sum() > 10_000 and not found[~WHITE | VENTRICLE].any()
    assert not white_matter({"flair": images["flair"]}, BRAIN, None, "flair").any()


def test_mean_difference():
    truth, mask = torch.tensor([0.8, 1.0, 0.5]), torch.tensor([1, 1, 0])
    assert mean_difference(torch.tensor([0.5, 0.7, 0.9]), truth, mask) == pytest.approx(-0.3)


def test_contrast_kept():
    lesion, white = torch.tensor([1, 1, 1, 0, 0, 0]).bool(), torch.tensor([0, 0, 0, 1, 1, 1]).bool()
    truth = torch.tensor([0.7, 0.8, 0.9, 0.3, 0.4, 0.5])
    pred = torch.tensor([0.6, 0.5, 0.0, 0.2, 0.4, 0.9])
    assert contrast_kept(truth, truth, lesion, white) == 1
    assert contrast_kept(pred, truth, lesion, white) == pytest.approx(0.1 / 0.4)
    assert contrast_kept(1 - truth, truth, lesion, white) == pytest.approx(-1)
    assert math.isnan(contrast_kept(pred, torch.tensor([0.4, 0.44, 0.5, 0.3, 0.4, 0.5]), lesion, white))
