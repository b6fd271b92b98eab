"""HFIB against eq. 2 computed another way, and what the paper claims of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from bundle.networks.hfib import HFIB


@pytest.mark.parametrize("training", [True, False])  # one axis after the other, or both at once
def test_is_the_image_plus_what_a_gaussian_takes_away(training: bool) -> None:
    block = HFIB(2)
    content = torch.rand(3, 2, 20, 24)
    sigma = block.sigma(content).detach().numpy()
    expected = np.empty(content.shape)
    for b in range(3):
        for c in range(2):
            image = content[b, c].numpy().astype(float)
            low = ndimage.gaussian_filter(image, sigma[b, c], mode="nearest", radius=2)
            expected[b, c] = image + (image - low)
    with torch.set_grad_enabled(training):
        made = block(content)
    np.testing.assert_allclose(made.detach().numpy(), expected, atol=1e-5)


def test_keeps_a_constant_image_up_to_the_border() -> None:
    content = torch.full((2, 3, 16, 16), 0.7)
    torch.testing.assert_close(HFIB(3)(content), content, atol=1e-5, rtol=0)


def test_sharpens_an_edge_and_leaves_its_place() -> None:
    step = torch.zeros(1, 1, 16, 16)
    step[..., 8:] = 1.0
    out = HFIB(1)(step)[0, 0, 8].detach()
    assert out[7] < -0.01 and out[8] > 1.01  # under- and overshoot beside the edge
    assert (out[8] - out[7]) > (step[0, 0, 8, 8] - step[0, 0, 8, 7]) + 0.02
    torch.testing.assert_close(out[:5], torch.zeros(5), atol=1e-5, rtol=0)


def test_the_filter_changes_with_its_input() -> None:
    block = HFIB(1)
    smooth = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    rough = torch.rand(1, 1, 16, 16) * 4
    assert (block.sigma(smooth) - block.sigma(rough)).abs().item() > 1e-3
    assert 0.3 <= block.sigma(rough).item() <= 2.0


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size: 4 must be odd"):
        HFIB(1, kernel_size=4)
