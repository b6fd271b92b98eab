import pytest
import torch

from bundle.inferers.aldm import (
    AutoencodingVolumeInferer,
    SynthesisVolumeInferer,
    TranslationInferer,
    WholeVolumeInferer,
    as_slices,
    as_volume,
)
from tests.networks.aldm_models import exam, tiny


def test_slices_and_back():
    volume = torch.rand(1, 3, 4, 5, 7)
    slices = as_slices(volume)
    assert slices.shape == (7, 3, 4, 5) and torch.equal(slices[0], volume[0, ..., 3])
    assert torch.equal(as_volume(slices), volume)


@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_a_volume_of_slices_is_completed_as_a_volume(mode):
    model, x = tiny(), exam(16, given=(1,))
    model.mode = "mean"
    with torch.no_grad():
        made = SynthesisVolumeInferer(mode)(as_slices(x), model)
        assert model.mode == "mean"
        model.mode = mode
        assert torch.equal(as_volume(made), model(x))


def test_what_is_shown_is_encoded_and_decoded():
    model, x = tiny(), exam(16, given=(2,))
    with torch.no_grad():
        made = as_volume(AutoencodingVolumeInferer()(as_slices(x), model))
        torch.testing.assert_close(made[:, 2:3], model.autoencoder(x[:, 2:3])[0].clamp(0, 1))
    assert not made[:, [0, 1, 3]].any()


def test_there_and_back():
    model, z = tiny(), torch.randn(2, 3, 4, 4, 4)
    source, target = torch.tensor([0, 1]), torch.tensor([3, 2])
    like, back = TranslationInferer()(z, model.ms_spade, source, target)
    assert torch.equal(like, model.ms_spade(z, target)) and torch.equal(back, model.ms_spade(like, source))


class Seen(torch.nn.Module):
    """Notes what it is given, and returns its images plus 1."""

    divisor = 8

    def forward(self, x):
        self.x = x.clone()
        return x[:, : x.shape[1] // 2] + 1


def test_the_network_sees_the_box_of_the_brain_as_a_whole():
    volume, network = torch.zeros(1, 5, 30, 40, 21), Seen()
    volume[:, 0, 5:25, 8:31, 2:19] = torch.rand(20, 23, 17) + 0.1
    volume[:, 2] = 1
    volume[:, 4] = volume[:, 0] > 0
    volume[:, 0, 5] = 0  # the darkest tissue: the brain goes on
    made = WholeVolumeInferer()(volume, network)
    assert made.shape == (1, 2, 30, 40, 21) and made.dtype == torch.float32
    assert network.x.shape == (1, 4, 24, 24, 24)  # 20 x 23 x 17, widened to multiples of 8
    assert network.x[:, 2].eq(1).sum() == network.x[:, 2].sum() == 24 * 24 * 21  # nothing is there beyond the volume
    assert not network.x[:, [1, 3]].any()
    torch.testing.assert_close(network.x[:, 0].sum(), volume[:, 0].sum())
    inside = volume[:, 4] > 0
    torch.testing.assert_close(made[:, 0][inside], volume[:, 0][inside] + 1)  # every voxel comes back to its place
    assert made[:, 1][inside].eq(1).all()
    assert not made[:, :, 0].any() and not made[..., 39, :].any()


def test_a_network_of_larger_voxels_sees_and_makes_the_same_field_of_view():
    """A ramp in millimetres stays one there and back, up to the brain's rim."""
    volume, network = torch.zeros(1, 3, 30, 42, 24), Seen()
    volume[:, 0, 6:24, 6:36, 6:18] = 1 + torch.arange(18.0)[:, None, None] / 30
    volume[:, 1] = 1
    volume[:, 2] = volume[:, 0] > 0
    volume[:, 0, 13, 19, 10] = 0  # the darkest tissue, where the coarse grid has a centre: no air
    made = WholeVolumeInferer(spacing=3)(volume, network)
    assert made.shape == (1, 1, 30, 42, 24)
    assert network.x.shape == (1, 2, 8, 16, 8)  # 6 x 10 x 4 voxels of 3 mm, widened to multiples of 8
    assert (network.x[:, 0] > 0).sum() == 6 * 10 * 4 - 1
    assert network.x[:, 1].eq(1).sum() == network.x[:, 1].sum() == 8 * 14 * 8
    expected = (volume[:, 0] + 1)[:, 6:24, 6:36, 6:18]
    inner = made[0, 0, 6:24, 6:36, 6:18]
    assert inner[7, 13, 4] == 1.0  # `Seen` makes 1 of 0
    inner[5:10, 11:16, 2:7] = expected[0, 5:10, 11:16, 2:7]
    torch.testing.assert_close(inner[1:-1], expected[0, 1:-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(inner, expected[0], atol=0.05, rtol=0)  # half a voxel beyond the outermost centres


def test_the_network_is_told_which_slices_a_scan_lacks():
    volume, network = torch.rand(1, 3, 24, 24, 24) + 0.1, Seen()
    volume[:, 1:] = 1
    volume[:, :2, ..., 9:12] = 0
    WholeVolumeInferer()(volume, network)
    assert network.x[0, 1].amin((0, 1)).nonzero().flatten().tolist() == [*range(9), *range(12, 24)]
    WholeVolumeInferer(spacing=3)(volume, network)
    assert torch.equal(network.x[0, 1].amax((0, 1)), torch.tensor([1.0, 1, 1, 0, 1, 1, 1, 1]))


def test_a_brain_at_the_border_is_padded():
    volume, network = torch.ones(1, 3, 9, 9, 9), Seen()
    volume[:, 0] = torch.rand(9, 9, 9) + 0.1
    made = WholeVolumeInferer()(volume, network)
    assert network.x.shape == (1, 2, 16, 16, 16)
    assert network.x[:, 1].eq(1).sum() == network.x[:, 1].sum() == 9**3
    torch.testing.assert_close(made[:, 0], volume[:, 0] + 1)


def test_one_volume_at_a_time():
    with pytest.raises(ValueError, match="a batch of 2"):
        WholeVolumeInferer()(torch.zeros(2, 3, 8, 8, 8), Seen())
