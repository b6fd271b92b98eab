"""Segmentations that can be worked out by hand, by the model's own branch and by a bundle made here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt

from bundle.engines.downstream import BranchSegmenter, BundleSegmenter, Downstream
from bundle.errors import InputError
from tests.engines.average import AverageNetwork
from tests.networks.models import CONTRASTS, tiny

ALL = torch.ones(3)


def masks(*boxes):
    """(3, 20, 20, 12), each one within a box (first, last) along all axes, or empty."""
    volume = torch.zeros(3, 20, 20, 12)
    for channel, box in enumerate(boxes):
        if box:
            volume[(channel, *(slice(*box),) * 3)] = 1
    return volume


def measured(found, truth, valid=ALL):
    return Downstream(lambda stack: found).measures(torch.zeros(8, 20, 20, 12), truth, valid)


def hd95(a, b):
    """Larger of the directed 95th percentiles of surface distances, with scipy alone."""
    edges = [mask & ~binary_erosion(mask) for mask in (a.numpy() > 0, b.numpy() > 0)]
    distances = [distance_transform_edt(~edges[1])[edges[0]], distance_transform_edt(~edges[0])[edges[1]]]
    return max(np.percentile(each, 95) for each in distances)


def test_dice_and_distance_by_hand():
    found, truth = masks((2, 8), (4, 8), (4, 6)), masks((2, 8), (3, 7), (6, 8))
    result = measured(found, truth)
    assert result["dice_wt"] == 1 and result["hd95_wt"] == 0
    assert result["dice_tc"] == pytest.approx(2 * 27 / (64 + 64))
    assert result["dice_et"] == 0
    for name, channel in (("tc", 1), ("et", 2)):
        assert result[f"hd95_{name}"] == pytest.approx(hd95(found[channel], truth[channel]), abs=1e-4)
    assert result["hd95_et"] > 2


def test_distance_of_random_shapes_agrees_with_scipy():
    noise = torch.rand(2, 20, 20, 12)
    pair = [(torch.nn.functional.avg_pool3d(volume[None, None], 5, 1, 2)[0, 0] > 0.5).float() for volume in noise]
    found, truth = (volume.expand(3, -1, -1, -1) for volume in pair)
    result = measured(found, truth)
    assert result["hd95_wt"] == pytest.approx(hd95(*pair), abs=1e-4) and result["hd95_wt"] > 0
    overlap = (pair[0] * pair[1]).sum()
    assert result["dice_wt"] == pytest.approx((2 * overlap / (pair[0].sum() + pair[1].sum())).item())


def test_empty_regions():
    result = measured(masks((2, 8), None, (4, 6)), masks((2, 8), None, None))
    assert result == {"dice_wt": 1, "hd95_wt": 0, "dice_tc": 1, "dice_et": 0}  # no distance to or from nothing
    assert measured(masks(None, None, None), masks((2, 8), None, None))["dice_wt"] == 0


def test_only_regions_that_the_label_tells():
    truth = masks((2, 8), None, None)
    assert set(measured(truth, truth, torch.tensor([1.0, 0, 0]))) == {"dice_wt", "hd95_wt"}

    def never(stack):
        raise AssertionError("nothing is to be segmented")

    assert Downstream(never).measures(torch.zeros(8, 4, 4, 4), masks(None, None, None), torch.zeros(3)) == {}
    assert measured(None, truth) == {}


def test_the_branch_of_the_model_slice_by_slice():
    model = tiny(region_mask=True)
    torch.nn.init.normal_(model.disentanglement.segmentation.out.weight, std=3)
    stack = torch.rand(12, 32, 32, 5)
    stack[4:8] = torch.tensor([1.0, 0, 1, 1])[:, None, None, None]
    found = BranchSegmenter(model, batch_size=2)(stack)
    with torch.no_grad():
        x = stack.movedim(-1, 0)
        structure = model.disentanglement.encode_structure(x[:, :4], x[:, 4:8, 0, 0])
        logits = model.disentanglement.segmentation(structure.scales).movedim(0, -1)
    assert found.shape == (3, 32, 32, 5) and 0.01 < found.float().mean() < 0.99
    assert torch.equal(found, logits > 0)
    stack[8:] = 1 - stack[8:]  # the region mask holds the truth
    assert torch.equal(BranchSegmenter(model)(stack), found)
    with pytest.raises(InputError, match="AverageNetwork has no segmentation branch"):
        BranchSegmenter(AverageNetwork(CONTRASTS))


def test_the_branch_of_a_model_that_sees_neighbours():
    model = tiny(neighbours=1)
    torch.nn.init.normal_(model.disentanglement.segmentation.out.weight, std=3)
    stack = torch.rand(8, 32, 32, 5)
    stack[4:] = 1
    other = stack.clone()
    other[:4, ..., 4] = torch.rand(4, 32, 32)
    changed = (BranchSegmenter(model)(stack) ^ BranchSegmenter(model)(other)).flatten(0, 2).any(0)
    assert changed.tolist() == [False, False, False, True, True]


@pytest.fixture
def segmenter(tmp_path):
    """A bundle of which each region is where a z-scored contrast is above 1: TC t1ce, WT flair, ET t1."""
    network = torch.nn.Conv3d(4, 3, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.fill_(-1)
        for region, channel in enumerate((0, 3, 1)):
            network.weight[region, channel] = 1
    config = {
        "imports": ["$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:7')",
        "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 3, "kernel_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.5, "device": "@device"},
        "initialize": ["$os.abort()"],
    }
    channels = {"inputs": {"image": {"num_channels": 4}}, "outputs": {"pred": {"num_channels": 3}}}
    for folder in ("configs", "models"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs/inference.json").write_text(json.dumps(config))
    (tmp_path / "configs/metadata.json").write_text(json.dumps({"network_data_format": channels}))
    torch.save(network.state_dict(), tmp_path / "models/model.pt")
    return tmp_path


def block_stack():
    """Contrasts of which each has its own bright block in a brain of 18^2 x 10 voxels, 0 outside."""
    stack = torch.zeros(8, 20, 20, 12)
    stack[4:] = 1
    brain = (slice(1, 19), slice(1, 19), slice(1, 11))
    for channel in range(4):
        stack[(channel, *brain)] = 0.1 + 0.1 * channel
        stack[channel, 2 + 4 * channel : 6 + 4 * channel, 4:9, 3:8] = 0.9
    return stack


def test_a_bundle_sees_the_contrasts_in_its_own_order(segmenter):
    stack = block_stack()
    found = BundleSegmenter(segmenter, CONTRASTS)(stack)
    for region, contrast in zip(found, ("flair", "t1ce", "t1")):  # WT, TC, ET
        assert torch.equal(region, stack[CONTRASTS.index(contrast)] == 0.9)
    # a synthesis without its lesion loses the region that is read from it, and that one only
    truth = found.clone()
    stack[3] = stack[3].clamp(max=0.4)
    result = Downstream(BundleSegmenter(segmenter, CONTRASTS)).measures(stack, truth, ALL)
    assert (result["dice_wt"], result["dice_tc"], result["dice_et"]) == (0, 1, 1) and "hd95_wt" not in result


def test_other_orders_and_a_script(segmenter):
    stack = block_stack()
    model = segmenter / "models/model.pt"
    network = torch.nn.Conv3d(4, 3, 1)
    network.load_state_dict(torch.load(model, weights_only=True))
    torch.jit.trace(network, torch.zeros(1, 4, 16, 16, 16)).save(model.with_suffix(".ts"))
    model.unlink()
    chosen = {"channels": ("t2", "t1", "t1ce", "flair"), "regions": ("et", "tc", "wt")}
    found = BundleSegmenter(segmenter, CONTRASTS, **chosen)(stack)
    for region, contrast in zip(found, ("t1", "flair", "t2")):
        assert torch.equal(region, stack[CONTRASTS.index(contrast)] == 0.9)


def test_a_contrast_that_is_needed_and_absent(segmenter):
    stack = block_stack()
    stack[[2, 6]] = 0
    downstream = Downstream(BundleSegmenter(segmenter, CONTRASTS))
    assert downstream.measures(stack, torch.ones(3, 20, 20, 12), ALL) == {}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"channels": ("t1ce", "t1", "t2", "pd")}, "segmenter_channels names pd, but the contrasts are t1, t1ce"),
        ({"channels": ("t1ce", "t1")}, "segmenter_channels names 2 channels, but the segmenter has 4. Give"),
        ({"regions": ("wt", "tc")}, "segmenter_regions is ['wt', 'tc']. Put wt, tc, et in the order"),
        ({"path": "nowhere"}, "nowhere/configs/inference.json: is missing. Give --segmenter the folder"),
    ],
)
def test_faults(segmenter, arguments, line):
    path = segmenter / arguments.pop("path", "")
    with pytest.raises(InputError) as fault:
        BundleSegmenter(path, CONTRASTS, **arguments)
    assert line in str(fault.value)


def test_weights_of_another_network(segmenter):
    torch.save(torch.nn.Conv3d(4, 2, 1).state_dict(), segmenter / "models/model.pt")
    with pytest.raises(InputError, match="the weights are of another architecture"):
        BundleSegmenter(segmenter, CONTRASTS)
    (segmenter / "models/model.pt").unlink()
    with pytest.raises(InputError, match="the file with the network's weights is missing"):
        BundleSegmenter(segmenter, CONTRASTS)
