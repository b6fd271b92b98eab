"""The switch of the paper's ablation "w/o Decoupling+MMSF"."""

from __future__ import annotations

import pytest
import torch

from bundle.losses.msg_ldm import DisentanglementLoss
from bundle.transforms.hide import subsets
from tests.networks.models import CHANNELS, tiny


@pytest.fixture
def model():
    return tiny(decoupled=False)


def exam(*presence: int) -> torch.Tensor:
    maps = torch.tensor(presence, dtype=torch.float32).view(1, 4, 1, 1).expand(1, 4, 32, 32)
    return torch.cat([torch.rand(1, 4, 32, 32), maps], dim=1)


def test_one_encoder_sees_the_images_and_the_presence_maps(model):
    part = model.disentanglement
    first = next(module for module in part.encoders.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.in_channels == 8 and part.encoders.channels == CHANNELS
    names = [name for name, _ in part.named_parameters()]
    assert not [name for name in names if "mmsf" in name or "style_encoders" in name]
    seen = []
    part.encoders.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image, presence = torch.rand(2, 4, 32, 32), torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    structure = part.encode_structure(image, presence)
    there = presence[:, :, None, None]
    torch.testing.assert_close(seen[0], torch.cat([image * there, there.expand(2, 4, 32, 32)], dim=1))
    assert structure.gates == []
    assert [tuple(scale.shape[1:]) for scale in structure.scales] == [(4, 32, 32), (8, 16, 16), (8, 8, 8), (16, 4, 4)]


@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_every_subset_is_completed_and_a_hidden_image_is_never_read(model, mode):
    model.mode = mode
    for presence in subsets(4):
        x = exam(*presence)
        with torch.inference_mode():
            before = model(x)
            hidden = [j for j, there in enumerate(presence) if not there]
            x[:, hidden] = float("nan")
            assert torch.isfinite(before).all() and torch.equal(model(x), before)


def test_no_style_comes_in(model):
    part = model.disentanglement.train()
    image, presence = torch.rand(2, 4, 32, 32), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]])
    result = part(image, presence, torch.ones(2, 4))
    assert not result["style"].any() and not part.style_bank.mean.any()
    # one contrast's decoder gets the same style whether its image is given or not: zeros
    seen = []
    part.decoders[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    part(image, presence, torch.ones(2, 4))
    assert seen[0].shape == (2, 4) and not seen[0].any()


def test_everything_but_the_styles_is_trained(model):
    part = model.disentanglement.train()
    image, presence = torch.rand(2, 4, 32, 32), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]])
    truth = {"image": image, "counted": 1 - presence, "presence": presence}
    truth |= {"regions": torch.ones(2, 3, 32, 32), "valid": torch.ones(2, 3)}
    DisentanglementLoss(lambda_sc=0)(part(image, presence, 1 - presence), truth).backward()
    without = {name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()}
    assert not [name for name in without if not name.endswith((".affine.weight", "bias"))], without


def test_the_default_is_decoupled():
    torch.manual_seed(3)
    default = tiny().state_dict()
    torch.manual_seed(3)
    explicit = tiny(decoupled=True).state_dict()
    assert default.keys() == explicit.keys() and all(torch.equal(default[name], explicit[name]) for name in default)
    assert any("mmsf" in name for name in default)
