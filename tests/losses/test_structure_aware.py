"""L_freq sees what the paper's form cannot, and the DCT is scipy's."""

from __future__ import annotations

import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from scipy import fft, ndimage

from bundle.losses.structure_aware import FrequencyLoss, StructureAwareLoss, dct2, ssim


@pytest.fixture
def head() -> torch.Tensor:
    """A picture (1, 1, 96, 96) with a smooth part, edges, texture and a black background, not symmetric."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    brain = ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1).float()
    lesion = ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.02).float()
    return (brain * (0.5 + 0.2 * x + 0.05 * torch.randn(96, 96)) + 0.3 * lesion).clamp(0, 1)[None, None]


def test_the_dct_is_that_of_scipy() -> None:
    image = torch.rand(2, 3, 16, 24)
    expected = torch.as_tensor(fft.dctn(image.numpy(), axes=(-2, -1), norm="ortho"))
    torch.testing.assert_close(dct2(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("data_range", [1.0, 4.8])
def test_the_ssim_and_its_gradient_are_those_of_monai(data_range: float) -> None:
    x_hat, x = torch.randn(3, 1, 40, 56, requires_grad=True), torch.randn(3, 1, 40, 56)
    options = {"kernel_size": (7, 7), "kernel_sigma": (1.5, 1.5), "data_range": data_range}
    expected = compute_ssim_and_cs(x_hat, x, 2, **options)[0].mean()
    found = ssim(x_hat, x, data_range).mean()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    gradients = [torch.autograd.grad(value, x_hat)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-3)


def test_blur_flip_and_emptiness_cost_more_than_a_faithful_copy(head: torch.Tensor) -> None:
    loss = FrequencyLoss()
    blurred = torch.as_tensor(ndimage.gaussian_filter(head.numpy(), (0, 0, 2, 2)))
    faithful = loss((head + 0.01 * torch.randn_like(head)).clamp(0, 1), head).item()
    assert loss(head, head).item() == pytest.approx(0, abs=1e-4)
    for name, bad in {"blur": blurred, "flip": head.flip(-1), "empty": torch.zeros_like(head)}.items():
        assert loss(bad, head).item() > faithful + 0.1, name
    assert loss(blurred, head) > loss(torch.as_tensor(ndimage.gaussian_filter(head.numpy(), (0, 0, 0.7, 0.7))), head)


def test_the_form_of_the_paper_is_nearly_blind(head: torch.Tensor) -> None:
    """Why the default differs from it."""
    loss = FrequencyLoss(paper_form=True)
    assert loss(head.flip(-1), head).item() == pytest.approx(0, abs=1e-4)
    assert loss(torch.zeros_like(head), head).item() < 0.1


def test_counts_only_what_has_a_truth() -> None:
    loss = StructureAwareLoss(frequency_weight=0)
    prediction, truth = torch.zeros(2, 2, 32, 32, requires_grad=True), torch.rand(2, 2, 32, 32)
    counted = torch.tensor([[1.0, 0], [0, 0]])
    value = loss(prediction, truth, counted)
    assert value.item() == pytest.approx(truth[0, 0].mean().item(), rel=1e-6)
    value.backward()
    assert prediction.grad is not None and prediction.grad[0, 1].abs().max() == 0 < prediction.grad[0, 0].abs().max()
    assert loss(prediction, truth, torch.zeros(2, 2)).item() == 0
