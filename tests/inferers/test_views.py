"""The mean over views against views that are turned by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.inferers.views import ViewsInferer, shared_slices, takes_a_start
from bundle.inferers.volume import VolumeInferer
from tests.networks.models import tiny

# how often a voxel is counted: axial, coronal and sagittal
PLANES = {
    "mirrored": (2, 0, 0),
    "three_planes": (1, 1, 1),
    "both": (2, 2, 1),
}
CHOICES = {"mirrored": {"mirrored": True}, "three_planes": {"three_planes": True}}
CHOICES["both"] = CHOICES["mirrored"] | CHOICES["three_planes"]


def volume(*sides: int, given: tuple[int, ...] = (0, 2)) -> Tensor:
    """(1, 8, X, Y, Z) of a brain that fills it."""
    x = torch.zeros(1, 8, *sides)
    for channel in given:
        x[:, channel] = torch.rand(sides, generator=torch.Generator().manual_seed(channel)) + 0.1
        x[:, 4 + channel] = 1
    return x


def gradient(x: Tensor) -> Tensor:
    """Tells rows from columns, their directions, and the slice from its neighbours: nothing that a view keeps."""
    rows, columns = x.shape[2:]
    row, column = torch.arange(1.0, rows + 1)[:, None], torch.arange(1.0, columns + 1)
    return x[:, :4] * (row + 100 * column) + x[:, :4].mean((2, 3), keepdim=True)


def expected(x: Tensor, counts: tuple[int, int, int]) -> Tensor:
    """The mean of `gradient` over the views of a volume whose sides are multiples of 16, written out."""
    image = x[0, :4]
    i, j, k = (torch.arange(1.0, side + 1) for side in image.shape[1:])
    i, back, j, k = i[:, None, None], i.flip(0)[:, None, None], j[:, None], k
    axial = image * (i + 100 * j) + image.mean((1, 2), keepdim=True)
    coronal = image * (i + 100 * k) + image.mean((1, 3), keepdim=True)
    sagittal = image * (k + 100 * j) + image.mean((2, 3), keepdim=True)
    if counts[0] == 2:
        axial = axial + image * (back + 100 * j) + image.mean((1, 2), keepdim=True)
    if counts[1] == 2:
        coronal = coronal + image * (back + 100 * k) + image.mean((1, 3), keepdim=True)
    views = [view for view, count in zip((axial, coronal, sagittal), counts) if count]
    return torch.stack(views).sum(0)[None] / sum(counts)


@pytest.mark.parametrize("name", PLANES)
def test_the_mean_over_the_views(name: str) -> None:
    x = volume(16, 32, 48)
    made = ViewsInferer(VolumeInferer(4), **CHOICES[name])(x, gradient)
    torch.testing.assert_close(made, expected(x, PLANES[name]))


def test_without_views_it_is_the_slices_alone() -> None:
    x = volume(16, 32, 20)
    assert torch.equal(ViewsInferer(VolumeInferer(4))(x, gradient), VolumeInferer(4)(x, gradient))


def test_a_height_that_no_network_can_halve() -> None:
    model, x = tiny(), volume(16, 16, 53)
    made = ViewsInferer(VolumeInferer(4), three_planes=True)(x, model)
    coronal = VolumeInferer(4)(F.pad(x, (0, 11)).transpose(3, 4), model).transpose(3, 4)[..., :53]
    sagittal = VolumeInferer(4)(F.pad(x, (0, 11)).transpose(2, 4), model).transpose(2, 4)[..., :53]
    torch.testing.assert_close(made, (VolumeInferer(4)(x, model) + coronal + sagittal) / 3)


@pytest.mark.parametrize("settings", [{}, {"shared": True}, {"region_mask": True}, {"neighbours": 1}], ids=str)
def test_a_mirrored_head_gives_the_mirror_image(settings: dict[str, bool]) -> None:
    model, x = tiny(**settings), volume(16, 16, 48)
    x = torch.cat([x, torch.rand(1, model.region_channels, 16, 16, 48)], 1)
    slices = VolumeInferer(4, num_contrasts=4, neighbours=settings.get("neighbours", 0))
    # sagittal slices are not mirrored, and their neighbours come in the other order in a mirrored head
    inferer = ViewsInferer(slices, mirrored=True, three_planes="neighbours" not in settings)
    made, other = inferer(x, model), inferer(x.flip(2), model).flip(2)
    torch.testing.assert_close(made, other)
    assert (slices(x, model) - slices(x.flip(2), model).flip(2)).abs().max() > 1e-4


def test_where_a_scan_ends_the_other_planes_end() -> None:
    """Below, it is as without them; above, as if the volume began there."""
    x, model = volume(16, 16, 56), tiny()
    x[:, [2, 6], ..., :8] = 0  # T2 lacks the lowest slices
    planes, axial = ViewsInferer(VolumeInferer(4), three_planes=True), VolumeInferer(4)
    made = planes(x, model)
    torch.testing.assert_close(made[..., :8], axial(x, model)[..., :8])
    torch.testing.assert_close(made[..., 8:], planes(x[..., 8:], model))


@pytest.mark.parametrize("shared", [47, 0])
def test_scans_that_share_few_slices_or_none_are_cut_axially_alone(shared: int) -> None:
    x, model = volume(16, 16, 55), tiny()
    x[:, [2, 6], ..., :8] = 0
    x[:, [0, 4], ..., 8 + shared :] = 0
    made = ViewsInferer(VolumeInferer(4), three_planes=True)(x, model)
    torch.testing.assert_close(made, VolumeInferer(4)(x, model))


@pytest.mark.parametrize(
    ("t1", "t2", "shared"),
    [
        (range(20), range(20), (2, 18)),  # the brain is from 2 to 17
        (range(20), range(5, 20), (5, 18)),
        (range(12), range(5, 20), (5, 12)),
        (range(20), [*range(7), *range(8, 20)], (8, 18)),  # the longest run
        (range(10), range(10, 20), (0, 0)),
    ],
)
def test_shared_slices(t1: range, t2: range, shared: tuple[int, int]) -> None:
    x = volume(16, 16, 20)[0]
    for channel, there in ((0, t1), (2, t2)):
        gone = [z for z in range(20) if z not in there]
        x[4 + channel, ..., gone] = 0
        x[channel, ..., gone] = 0
    x[:4, ..., [0, 1, 18, 19]] = 0  # air
    assert shared_slices(x) == slice(*shared)
    with_more = torch.cat([x, torch.ones(4, 16, 16, 20)])  # a region mask
    assert shared_slices(with_more, 4) == slice(*shared)


def test_a_sample_starts_from_the_mean_of_the_views() -> None:
    model, x = tiny(), volume(16, 16, 16)
    model.seed = 3
    inferer = ViewsInferer(VolumeInferer(4), mirrored=True)
    mean = inferer(x, model)
    model.mode = "sample"
    made = inferer(x, model)
    assert model.mode == "sample" and (made - mean)[:, [1, 3]].abs().max() > 1e-3
    torch.testing.assert_close(made, VolumeInferer(16)(x, model, made=mean))
    assert torch.equal(inferer.reconstruct(x, model), mean) and model.mode == "sample"
    assert torch.equal(inferer(x, model, made=mean), made) and not torch.equal(inferer(x, model, made=1 - mean), made)
    assert (made - VolumeInferer(4)(x, model)).abs().max() > 1e-4


def test_the_mode_is_the_network_s_own_again_after_a_failure() -> None:
    model = tiny()
    model.mode = "sample"
    with pytest.raises(ValueError, match="no contrast at all"):
        ViewsInferer(VolumeInferer(4), mirrored=True)(volume(16, 16, 16) * torch.eye(8)[0].view(8, 1, 1, 1), model)
    assert model.mode == "sample"


def test_which_networks_take_a_start() -> None:
    assert takes_a_start(tiny()) and not takes_a_start(gradient)
