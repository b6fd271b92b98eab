"""The contract of network_def, kept by all baselines."""

import pytest
import torch

from bundle.networks.baselines.completion import Completion
from tests.networks.baselines.models import CONTRASTS, NAMES, small


def stack(presence, side=32):
    presence = torch.tensor(presence, dtype=torch.float32)
    maps = presence[:, :, None, None].expand(-1, -1, side, side)
    return torch.cat([torch.rand_like(maps), maps], dim=1)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_available_contrasts_pass_and_the_missing_are_made(name):
    x = stack([[1, 0, 1, 0], [0, 0, 0, 1]])
    made = small(name)(x)
    assert made.shape == (2, 4, 32, 32) and made.min() >= 0 and made.max() <= 1
    shown = x[:, 4:] > 0
    assert torch.equal(made[shown], x[:, :4][shown])
    for b, j in (~shown[..., 0, 0]).nonzero().tolist():
        assert made[b, j].std() > 0


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_image_of_an_absent_contrast_is_not_read(name):
    x, network = stack([[1, 0, 1, 0]]), small(name)
    expected = network(x)
    x[:, 1], x[:, 3] = torch.nan, 7
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_what_is_available_matters(name):
    x, network = stack([[1, 0, 0, 0]]), small(name)
    other = x.clone()
    other[:, 0] = 1 - other[:, 0]
    assert (network(x)[:, 1:] - network(other)[:, 1:]).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 64)])
@torch.no_grad()
def test_sides_are_multiples_of_8(name, height, width):
    x = torch.rand(1, 8, height, width)
    x[:, 4:] = torch.tensor([1.0, 1, 0, 0])[:, None, None]
    assert small(name)(x).shape == (1, 4, height, width)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_other_contrasts(name):
    x = torch.rand(1, 4, 32, 32)
    x[:, 2:] = torch.tensor([1.0, 0])[:, None, None]
    assert small(name, ("t1", "flair"))(x).shape == (1, 2, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_attributes(name):
    network = small(name)
    assert network.contrasts == CONTRASTS and network.mode == "mean" and network.targets is None
    assert network.start_level == 1.0 and network.seed == 0
    assert network.num_steps == {"syndiff": 4, "palette": 3}.get(name, 1)


@pytest.mark.parametrize("name", ["pix2pix", "mmgan", "resvit"])
def test_in_training_nothing_is_clipped(name):
    network, x = small(name).train(), stack([[1, 0, 1, 0]])
    made = network(x) - 3
    assert made.min() < -1  # what the loss sees is the network's own output
    made[:, 0].sum().backward()  # a shown contrast comes from the network, too
    assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)
    last = [weight.grad for weight in network.network.parameters()][-1]
    assert last[0] != 0


@torch.no_grad()
def test_mmgan_sees_zeros_and_no_maps():
    """Implicit conditioning: an available contrast that is 0 throughout is the same as a missing one."""
    network = small("mmgan")
    dark = stack([[1, 1, 0, 0]])
    dark[:, 1] = 0
    missing = dark.clone()
    missing[:, 5] = 0
    assert torch.equal(network(dark)[:, 2:], network(missing)[:, 2:])
    network = small("pix2pix")
    assert not torch.equal(network(dark)[:, 2:], network(missing)[:, 2:])


@torch.no_grad()
def test_what_is_made_is_clipped_and_only_where_missing():
    class Plain(Completion):
        def make(self, image, presence):
            return image + 2 * presence - 0.5

    x = stack([[1, 0, 0, 0]])
    made = Plain(CONTRASTS).eval()(x)
    assert torch.equal(made[:, 0], x[:, 0]) and not made[:, 1:].any()
    trained = Plain(CONTRASTS).train()(x)
    assert torch.allclose(trained[:, 0], x[:, 0] + 1.5) and (trained[:, 1:] == -0.5).all()
