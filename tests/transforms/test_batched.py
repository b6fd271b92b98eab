"""Augmentation of batches: the identity where nothing is drawn, and the size of what is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bundle.transforms.batched import Appearance, affine_grid


def grid(**changes) -> torch.Tensor:
    still = {"rotate": 0.0, "shear": 0.0, "scale": 0.0, "shift": 0.0, "prob": 1.0}
    generator = torch.Generator().manual_seed(0)
    return affine_grid(3, 32, 16, generator=generator, device=torch.device("cpu"), **{**still, **changes})


def sample(image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(image.expand(3, -1, -1, -1), where, align_corners=False)


IMAGE = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def test_without_changes_a_window_is_the_middle_of_the_slice():
    torch.testing.assert_close(sample(IMAGE, grid())[1, 0], IMAGE[0, 0, 8:24, 8:24], atol=1e-5, rtol=0)


def test_mirrored_windows_run_backwards_along_the_first_axis():
    found = sample(IMAGE, grid(mirrored=torch.tensor([True, False, True])))
    torch.testing.assert_close(found[0, 0], IMAGE[0, 0, 8:24, 8:24].flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1, 0], IMAGE[0, 0, 8:24, 8:24], atol=1e-5, rtol=0)


def test_a_window_moves_by_at_most_the_shift():
    middles = grid(shift=4.0)[:, 7:9, 7:9].mean((1, 2)) * 16  # in pixels from the middle of the slice
    assert middles.abs().max() <= 4 and middles.abs().max() > 1 and middles.unique().numel() == 6


def test_size_and_angle_stay_in_their_ranges():
    corner = grid(scale=0.1)[:, 0, 0] / grid()[:, 0, 0]
    assert (corner - 1).abs().max() <= 0.1 + 1e-6 and corner.unique().numel() == 6
    turned = grid(rotate=0.2)
    along = turned[:, 0, -1] - turned[:, 0, 0]
    angle = torch.atan2(along[:, 1], along[:, 0])
    assert angle.abs().max() <= 0.2 + 1e-6 and angle.abs().max() > 0.01


def test_nothing_drawn_leaves_the_image():
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(Appearance(prob=0.0)(image, torch.Generator().manual_seed(0)), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [
        ({"gamma": (2.0, 2.0), "gain": 0, "bias": 0, "noise": 0}, 0.25, 0.25),
        ({"gamma": (1.0, 1.0), "gain": 0.1, "bias": 0, "noise": 0}, 0.45, 0.55),
    ],
)
def test_gamma_and_gain_do_what_they_say(changes, low, high):
    image = torch.full((4, 2, 24, 24), 0.5)
    changed = Appearance(prob=1.0, **changes)(image, torch.Generator().manual_seed(0))[..., 8:16, 8:16]  # not smoothed
    assert low - 1e-5 <= changed.min() and changed.max() <= high + 1e-5


def test_the_bias_field_is_smooth_and_of_its_size():
    generator = torch.Generator().manual_seed(0)
    changed = Appearance((1.0, 1.0), 0, 0.2, 0, prob=1.0)(torch.full((8, 1, 32, 32), 0.5), generator)
    field = (changed[..., 2:-2, 2:-2] / 0.5).log()
    assert field.abs().max() <= 0.5 and field.abs().max() > 0.02
    assert field.diff(dim=2).abs().max() < 0.06


def test_background_stays_black_and_noise_has_its_size():
    image = torch.full((2, 2, 64, 64), 0.5)
    image[..., :20] = 0
    changed = Appearance((1.0, 1.0), 0, 0, 0.03, prob=1.0)(image, torch.Generator().manual_seed(0))
    assert not changed[..., :20].any()
    assert 0 < (changed[..., 24:60] - 0.5)[:, :, 4:60].std((2, 3)).max() <= 0.033
