"""The voxel-wise perceptron: what one pixel's output depends on, and where a pixel lies in the brain."""

import numpy as np
import torch
from scipy import ndimage

from bundle.networks.baselines import voxel_mlp
from bundle.networks.baselines.voxel_mlp import VoxelMLP, distance_to_boundary, filled, place_in_brain, smoothed
from tests.networks.baselines.models import CONTRASTS


def disc(side=96, radius=40.0, centre=(48, 44)):
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)[None, None]


def exam(presence=(1, 1, 0, 1)):
    torch.manual_seed(0)
    maps = torch.tensor(presence, dtype=torch.float32)[None, :, None, None].expand(1, 4, 96, 96)
    return torch.cat([(0.2 + 0.8 * torch.rand(1, 4, 96, 96)) * disc() * maps, maps], dim=1)


def network_of():
    torch.manual_seed(1)
    network = VoxelMLP(CONTRASTS).eval()
    for perceptron in network.perceptrons:
        torch.nn.init.constant_(perceptron[-1].bias, 0.5)  # so that nothing is clipped
    return network


@torch.no_grad()
def test_without_the_gaussians_it_is_exactly_voxel_wise(monkeypatch):
    """Pixels may change places inside the brain: only those that moved change."""
    monkeypatch.setattr(voxel_mlp, "SCALES", ())
    network, x = network_of(), exam()
    other = x.clone()
    block = other[..., 50:60, 40:50].flatten(2)
    other[..., 50:60, 40:50] = block[..., torch.randperm(100)].unflatten(2, (10, 10))
    change = (network(x)[:, 2] - network(other)[:, 2]).abs()[0]
    assert change[50:60, 40:50].max() > 1e-3
    assert not network(x)[:, 2, ~disc()[0, 0]].any()  # outside the brain
    change[50:60, 40:50] = 0
    assert change.max() == 0
    # equal pixels at one place have equal outputs, whatever lies around them
    single = torch.where(disc(), torch.full_like(other, 0.5), 0)
    single[:, :4, 48, 44], single[:, 4:] = x[:, :4, 48, 44], x[:, 4:]
    assert torch.allclose(network(single)[:, :, 48, 44], network(x)[:, :, 48, 44], atol=1e-6)


@torch.no_grad()
def test_the_gaussians_reach_four_standard_deviations_in_the_slice():
    network, x = network_of(), exam()
    other = x.clone()
    other[:, 0, 48, 44] += 0.5
    change = (network(x) - network(other)).abs()[0, 2] > 0
    reach = change.nonzero() - torch.tensor([48, 44])
    assert 10 <= reach.abs().max() <= 16
    spot = torch.zeros(1, 1, 41, 41)
    spot[..., 20, 20] = 1
    for sigma in (1.5, 4.0):
        expected = ndimage.gaussian_filter(spot[0, 0].numpy(), sigma, mode="constant")
        assert np.allclose(smoothed(spot, sigma)[0, 0].numpy(), expected, atol=1e-6)


def test_parameters():
    """Per target 19 inputs, twice 96 units, one output: 3 scales of 4 contrasts, 4 presence maps, 3 of the place."""
    perceptron = 19 * 96 + 96 + 96 * 96 + 96 + 96 + 1
    assert sum(weight.numel() for weight in VoxelMLP(CONTRASTS).parameters()) == 4 * perceptron == 45_316


@torch.no_grad()
def test_each_target_has_a_perceptron_of_its_own():
    network, x = VoxelMLP(CONTRASTS, units=8).train(), exam()
    before = network(x)
    network.perceptrons[2][2].weight += 1
    change = (network(x) - before).abs().amax((0, 2, 3))
    assert change[2] > 0 and not change[[0, 1, 3]].any()


def test_distance_to_the_boundary():
    mask = disc().float()
    depth = distance_to_boundary(mask)[0, 0] * voxel_mlp.DEEPEST
    assert depth[48, 44] == 36  # not 40: the distance is octagonal
    euclidean = ndimage.distance_transform_edt(mask[0, 0].numpy())
    inside = euclidean > 5
    error = depth.numpy()[inside] / euclidean[inside] - 1
    assert np.abs(error).max() < 0.15 and np.abs(error).mean() < 0.08
    half = torch.zeros(1, 1, 96, 96)
    half[..., :50] = 1
    straight = distance_to_boundary(half)[0, 0, 48] * voxel_mlp.DEEPEST
    assert straight[[51, 50, 49, 48, 20, 10, 9, 0]].tolist() == [0, 0, 1, 2, 30, 40, 40, 40]
    # the edge of a window is no boundary
    assert distance_to_boundary(torch.ones(1, 1, 96, 96)).min() == 1


def test_dark_fluid_inside_is_no_boundary():
    mask = disc().float()
    expected = distance_to_boundary(filled(mask))
    mask[..., 40:48, 30:60] = 0
    assert torch.equal(distance_to_boundary(filled(mask)), expected)
    mask[..., 40:60, 30:60] = 0
    assert not torch.equal(distance_to_boundary(filled(mask)), expected)


def test_position_in_the_box_and_slices_without_a_brain():
    shown = torch.cat([disc(), disc(radius=20, centre=(60, 30)), torch.zeros(1, 1, 96, 96, dtype=torch.bool)])
    place = place_in_brain(filled(shown.float()))
    assert place.shape == (3, 3, 96, 96) and place.isfinite().all() and not place[2].any()
    assert place[0, 1:, 48, 44].tolist() == place[1, 1:, 60, 30].tolist() == [0, 0]
    assert place[0, 1, 8, 0] == -1 and place[0, 1, 88, 0] == 1 and place[0, 2, 0, 4] == -1 and place[0, 2, 0, 84] == 1
    assert place[1, 1, 40, 0] == -1 and place[1, 2, 0, 50] == 1
