import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks.spade_norm import SPADE

from bundle.networks.ms_spade import MSSPADE, MSSPADELayer, SwitchableConv3d

M = 3


def small(trunk_norm=False):
    torch.manual_seed(0)
    return MSSPADE(
        M, 3, stem_channels=4, res_channels=(8,), spade_channels=(8, 4), hidden_channels=4, trunk_norm=trunk_norm
    )


def test_each_sample_passes_through_its_own_convolution():
    conv, x, target = SwitchableConv3d(M, 2, 5, bias=0.3), torch.rand(4, 2, 5, 6, 7), torch.tensor([2, 0, 0, 1])
    y = conv(x, target)
    for sample, j in enumerate(target):
        alone = F.conv3d(x[sample : sample + 1], conv.weight[j], conv.bias[j], padding=1)
        torch.testing.assert_close(y[sample : sample + 1], alone)
    y[target == 1].sum().backward()
    assert conv.weight.grad[1].any() and not conv.weight.grad[[0, 2]].any()


def test_equation_1():
    """With gamma and beta made constant, each channel gets the mean beta and the deviation gamma of its target."""
    layer, h = MSSPADELayer(M, 2, hidden_channels=3), 5 + 4 * torch.rand(2, 2, 6, 6, 6)
    for bank, values in ((layer.gamma, [1.0, 2.0, 3.0]), (layer.beta, [-1.0, 0.0, 4.0])):
        torch.nn.init.zeros_(bank.weight)
        bank.bias.data = torch.tensor(values)[:, None].expand(M, 2).clone()
    x = layer(h, torch.tensor([1, 2]))
    torch.testing.assert_close(x.mean((2, 3, 4)), torch.tensor([[0.0, 0.0], [4.0, 4.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        x.std((2, 3, 4), unbiased=False), torch.tensor([[2.0, 2.0], [3.0, 3.0]]), atol=1e-3, rtol=0
    )
    mean, std = h.mean((2, 3, 4), keepdim=True), h.std((2, 3, 4), keepdim=True, unbiased=False)
    gamma = torch.tensor([2.0, 3.0])[:, None, None, None, None]
    beta = torch.tensor([0.0, 4.0])[:, None, None, None, None]
    torch.testing.assert_close(x, gamma * (h - mean) / std + beta, atol=1e-3, rtol=0)


def fitted(forward, parameters, steps=150):
    """Mean squared error left after learning that contrast j is the normalised source, brighter by 2 + j."""
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for step in range(steps):
        h, target = torch.randn(2, 2, 6, 6, 6), torch.tensor([step % M, (step + 1) % M])
        truth = F.instance_norm(h) + 2 + target[:, None, None, None, None]
        loss = F.mse_loss(forward(h, target), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_an_offset_between_contrasts_is_learned_which_the_block_of_monai_cannot():
    ours = MSSPADELayer(M, 2, hidden_channels=4)
    theirs = torch.nn.ModuleList(SPADE(2, 2, spatial_dims=3, hidden_channels=4) for _ in range(M))

    def switched(h, target):
        return torch.cat([theirs[j](x[None], x[None]) for x, j in zip(h, target)])

    left = fitted(ours, ours.parameters())
    print(f"MS-SPADE {left:.4f}, MONAI's SPADE {fitted(switched, theirs.parameters()):.4f}")
    assert left < 0.1
    assert fitted(switched, theirs.parameters()) > 5  # a variance of 2/3 between targets and the mean's square, 9


def test_the_target_is_switched_and_switched_back():
    network, z = small(), torch.randn(1, 3, 8, 8, 8)
    made = [network(z, torch.tensor([j])) for j in (0, 1, 0)]
    assert torch.equal(made[0], made[2])
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_samples_of_a_batch_do_not_mix():
    network, z = small(), torch.randn(3, 3, 8, 8, 8)
    together = network(z, torch.tensor([2, 0, 1]))
    alone = torch.cat([network(z[i : i + 1], torch.tensor([j])) for i, j in enumerate((2, 0, 1))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_instance_norm_at_the_entrance_takes_the_scale_of_the_source_away():
    """Which Table B has, and the default has not."""
    z, target = torch.randn(1, 3, 8, 8, 8), torch.tensor([1])
    with_norm, without = (
        [network(factor * z, target) for factor in (1, 3)] for network in (small(trunk_norm=True), small())
    )
    torch.testing.assert_close(*with_norm, atol=1e-3, rtol=0)
    assert (without[0] - without[1]).abs().max() > 0.1


def test_the_size_of_table_b():
    network = MSSPADE(4, 3, 128, (256, 256), (256, 256, 256, 128), 128)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(92.8e6, rel=0.02)
