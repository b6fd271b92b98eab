"""Each stage's loss trains its part of the model alone, and counts what has a truth."""

from __future__ import annotations

import pytest
import torch

from bundle.engines.device_losses import AutoencoderStage, DiffusionStage, DisentanglementStage
from tests.networks.models import tiny

STAGES = {"autoencoder": AutoencoderStage, "disentanglement": DisentanglementStage, "diffusion": DiffusionStage}


def batch(b: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(b, 4, 32, 32, generator=generator)
    exists = torch.ones(b, 4)
    exists[0, 1] = 0
    image[0, 1] = 0
    return {
        "image": image,
        "seen": (image * 0.9).clone(),
        "exists": exists,
        "presence": exists * torch.tensor([1.0, 0, 1, 0]),
        "regions": (torch.rand(b, 3, 32, 32, generator=generator) > 0.5).float(),
        "valid": torch.tensor([[1.0, 0, 0], [1, 1, 1], [0, 0, 0]])[:b],
        "brain": torch.ones(b, 1, 32, 32),
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_trains_its_part_alone(name):
    model = tiny()
    model.requires_grad_(False)
    stage = STAGES[name](model, amp=False)
    stage.network.requires_grad_(True)
    torch.manual_seed(0)
    (prepared,) = stage.prepare([batch()])
    loss = stage(prepared)
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss) and loss > 0
    trained = {part for part, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained and all(part.startswith(f"{name}.") for part in trained)


def test_a_missing_contrast_has_no_say_in_the_disentanglement():
    model = tiny()
    stage = DisentanglementStage(model, amp=False)
    torch.manual_seed(0)
    (prepared,) = stage.prepare([batch()])
    mean = model.disentanglement.style_bank.mean.clone()
    before = stage(prepared)
    model.disentanglement.style_bank.mean.copy_(mean)
    prepared["image"][0, 1] = 0.7
    torch.testing.assert_close(stage(prepared), before)


def test_all_contrasts_are_never_shown():
    model = tiny()
    full = {**batch(), "presence": batch()["exists"]}
    for kind in (DisentanglementStage, DiffusionStage):
        drawn = kind(model, amp=False).draw(full)
        assert (drawn["presence"].sum(1) == full["exists"].sum(1) - 1).all()


def test_small_steps_of_the_diffusion_are_drawn_more_often():
    model = tiny()
    steps = DiffusionStage(model, amp=False, emphasis=2.0).draw(batch(3))
    assert steps["step"].shape == (3, 4) and steps["noise"].shape == (3, 4, 3, 8, 8)
    torch.manual_seed(0)
    many = torch.cat([DiffusionStage(model, False, 2.0).draw(batch())["step"].flatten() for _ in range(100)])
    assert many.min() >= 0 and many.max() < 1000 and many.float().mean() == pytest.approx(333, abs=40)


def test_the_loss_is_that_of_the_pairwise_network():
    """The same number as the ordinary batch and loss give, sample by sample and subset by subset."""
    model = tiny()
    stage = DisentanglementStage(model, amp=False)
    one = {key: value[1:2] for key, value in batch().items()}
    prepared = {**one, "own": torch.zeros(1, 4)}
    part = model.disentanglement.eval()
    with torch.no_grad():
        found = stage(prepared)
        presence = torch.cat([one["presence"], one["exists"] - one["presence"]])
        truth = {
            "image": one["image"].repeat(2, 1, 1, 1),
            "counted": 1 - presence,
            "presence": presence,
            "regions": one["regions"].repeat(2, 1, 1, 1),
            "valid": torch.cat([one["valid"], 0 * one["valid"]]),
        }
        result = part(one["seen"].repeat(2, 1, 1, 1), presence, 1 - presence)
        loss = stage.loss
        expected = loss.lambdas["sa"] * loss.sa(
            result["reconstruction"], truth["image"], truth["counted"], truth["regions"][:, :1]
        )
        expected += loss.lambdas["seg"] * loss.seg(result["segmentation"], truth["regions"], truth["valid"])
        style = part.encode_style(one["seen"], one["exists"])
        expected += loss.lambdas["sc"] * loss.sc(style, one["exists"])
    assert found.item() == pytest.approx(expected.item(), rel=2e-3)  # the mean style moved by a hundredth in between
