import pytest
import torch

from bundle.networks.unet_regression import UNetRegression

CONTRASTS = ("t1", "t1ce", "t2", "flair")


@pytest.fixture
def network():
    return UNetRegression(CONTRASTS, features=(4, 4, 8, 8, 8, 4)).eval()


def stack(presence):
    presence = torch.tensor(presence, dtype=torch.float32)
    maps = presence[:, :, None, None].expand(-1, -1, 32, 32)
    return torch.cat([torch.rand_like(maps), maps], dim=1)


@torch.no_grad()
def test_available_contrasts_pass_and_the_missing_are_made(network):
    x = stack([[1, 0, 1, 0], [0, 0, 0, 1]])
    made = network(x)
    assert made.shape == (2, 4, 32, 32) and made.min() >= 0 and made.max() <= 1
    shown = x[:, 4:] > 0
    assert torch.equal(made[shown], x[:, :4][shown])
    assert made[~shown].std() > 0


@torch.no_grad()
def test_the_image_of_an_absent_contrast_is_not_read(network):
    x = stack([[1, 0, 1, 0]])
    other = x.clone()
    other[:, 1] = torch.rand(32, 32)
    assert torch.equal(network(x), network(other))


def test_in_training_nothing_is_clipped(network):
    network.train()
    with torch.no_grad():
        network.unet.final_conv.bias.fill_(-3)
    made = network(stack([[1, 0, 1, 0]]))
    assert made.min() < -1
    made[:, 0].sum().backward()  # a shown contrast comes from the network, too
    assert network.unet.final_conv.weight.grad[0].abs().sum() > 0


def test_contract_of_the_network(network):
    assert network.contrasts == CONTRASTS and network.mode == "mean" and network.targets is None
    assert network.num_steps == 1 and network.seed == 0
