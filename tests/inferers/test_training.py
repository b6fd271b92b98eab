import pytest
import torch
from torch import nn

from bundle.inferers.training import AutocastInferer, AutoencodingInferer, DenoisingInferer, SynthesisInferer
from tests.networks.models import tiny


def stack(presence):
    presence = torch.tensor(presence, dtype=torch.float32)
    maps = presence[:, :, None, None].expand(-1, -1, 32, 32)
    return torch.cat([torch.rand_like(maps) * maps, maps], dim=1)


def test_autocast_only_where_asked():
    layer, x = nn.Linear(4, 2), torch.rand(3, 4)
    assert AutocastInferer()(x, layer).dtype == torch.float32
    assert torch.equal(AutocastInferer()(x, layer), layer(x))
    assert AutocastInferer(amp=True)(x, layer).dtype == torch.bfloat16


def test_arguments_reach_the_network():
    assert AutocastInferer()(torch.ones(1), lambda x, a, b: x + a + b, 2, b=3) == 6


@torch.no_grad()
def test_autoencoding_of_what_is_shown():
    model, x = tiny(), stack([[1, 0, 1, 0], [0, 0, 0, 1]])
    made = AutoencodingInferer()(x, model)
    assert made.shape == (2, 4, 32, 32)
    for b, j in ((0, 0), (0, 2), (1, 3)):
        assert torch.allclose(made[b, j], model.decode(model.encode(x[b : b + 1, j : j + 1]))[0, 0], atol=1e-5)
    assert not made[0, 1].any() and not made[0, 3].any() and not made[1, :3].any()


@torch.no_grad()
def test_synthesis_in_a_mode_of_its_own():
    model, x = tiny(), stack([[1, 0, 1, 0]])
    model.mode = "mean"
    mean = model(x)
    assert torch.equal(SynthesisInferer("mean")(x, model), mean)
    model.mode = "sample"
    sample = model(x)
    model.mode = "mean"
    assert torch.equal(SynthesisInferer("sample")(x, model), sample)
    assert model.mode == "mean" and not torch.equal(mean, sample)
    with pytest.raises(ValueError, match="channels"):
        SynthesisInferer("sample")(x[:, :5], model)
    assert model.mode == "mean"  # also after an error


def test_denoising_asks_the_guidance_and_trains_its_projection():
    model = tiny()
    fused, available = torch.rand(2, 16, 4, 4), torch.rand(2, 4, 3, 8, 8)
    presence = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    z, t, target = torch.rand(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([1, 3])
    mean = torch.rand(2, 3, 8, 8)
    # convolutions of MONAI's UNet start at zero: an untrained one says nothing
    for parameter in model.diffusion.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    out = DenoisingInferer()(z, model.diffusion, t, target, fused, available, presence, mean)
    assert out.shape == z.shape
    out.square().sum().backward()
    assert model.diffusion.guidance.weight.grad.abs().sum() > 0
    other = available.clone()
    other[presence == 0] = 9
    with torch.no_grad():
        assert torch.equal(DenoisingInferer()(z, model.diffusion, t, target, fused, other, presence, mean), out)
        assert not torch.equal(
            DenoisingInferer()(z, model.diffusion, t, target, fused + 1, available, presence, mean), out
        )
        assert not torch.equal(
            DenoisingInferer()(z, model.diffusion, t, 3 - target, fused, available, presence, mean), out
        )
