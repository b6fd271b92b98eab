"""LPIPS and FID with tiny networks that are scripted here."""

from __future__ import annotations

import pytest
import torch
from monai.metrics import FIDMetric
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.metrics.perceptual import FID, LPIPS, FeatureNetwork, axial_slices

# MONAI's call of SciPy's matrix root; the covariance of equal slices is singular, and all of it may be zero
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Matrix is singular"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in scalar divide:RuntimeWarning"),
]

SHAPE = (9, 7, 40)


class Distance(nn.Module):
    def __init__(self, keep: bool = False) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distance = (a - b).abs().mean((1, 2, 3), keepdim=True)
        return distance if self.keep else distance.flatten()


class Features(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).relu().mean((2, 3))


class Pixels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Nothing(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).mean()


class Tuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def saved(network, folder):
    path = folder / "network.pt"
    torch.jit.script(network).save(str(path))
    return path


def volumes(seed=0, shape=SHAPE, first=3, last=37):
    generator = torch.Generator().manual_seed(seed)
    pred, truth = torch.rand(2, *shape, generator=generator)
    brain = torch.zeros(shape)
    brain[2:-2, 1:-1, first:last] = 1
    return pred, truth, brain


def test_slices_are_those_with_brain_in_the_range_of_the_networks():
    image, _, brain = volumes()
    image[3, 3, 3] = 1.7
    slices = axial_slices(image, brain)
    assert slices.shape == (34, 3, 9, 7)
    assert slices[0, :, 3, 3].tolist() == [1, 1, 1]
    expected = 2 * (image * brain).clamp(0, 1)[..., 3:37] - 1
    for k in (0, 20, 33):
        for channel in range(3):
            torch.testing.assert_close(slices[k, channel], expected[..., k])


@pytest.mark.parametrize("keep", [False, True])
def test_lpips_is_the_mean_over_slices_with_brain(tmp_path, keep):
    pred, truth, brain = volumes()
    lpips = LPIPS(saved(Distance(keep), tmp_path))
    expected = 2 * ((pred - truth).abs() * brain)[..., 3:37].double().mean().item()  # all slices are of one size
    assert lpips(pred, truth, brain) == pytest.approx(expected, rel=1e-5)
    assert lpips(truth, truth, brain) == 0


def test_fid_is_that_of_monai_on_all_slices(tmp_path):
    features = FeatureNetwork(saved(Features(), tmp_path))
    fid, made, real = FID(features), [], []
    for seed, (first, last) in enumerate([(3, 37), (0, 20), (10, 11)]):
        pred, truth, brain = volumes(seed, first=first, last=last)
        pred = pred**2
        fid.add(pred, truth, brain)
        made.append(features.network.network(axial_slices(pred, brain)))
        real.append(features.network.network(axial_slices(truth, brain)))
    assert sum(map(len, made)) == 55
    expected = FIDMetric()(torch.cat(made).detach(), torch.cat(real).detach()).item()
    assert fid.compute() == pytest.approx(expected, rel=1e-5)
    assert expected > 1e-3


def test_fid_of_equal_slices_is_zero_and_of_too_few_none(tmp_path):
    features = FeatureNetwork(saved(Features(), tmp_path))
    pred, truth, brain = volumes()
    fid = FID(features)
    assert fid.compute() is None
    one = torch.zeros(SHAPE)
    one[3, 3, 8] = 1
    fid.add(pred, truth, one)
    assert fid.compute() is None
    equal = FID(features)
    equal.add(truth, truth, brain)
    assert equal.compute() == pytest.approx(0, abs=1e-6)
    worse = FID(features)
    worse.add(0 * truth, truth, brain)
    assert worse.compute() > 1e-3


@pytest.mark.parametrize("kind", [LPIPS, FeatureNetwork])
def test_a_file_that_is_no_network_is_one_line(tmp_path, kind):
    missing = tmp_path / "none.pt"
    with pytest.raises(InputError, match="does not exist. Give the path of a TorchScript file$") as fault:
        kind(missing)
    assert str(fault.value).startswith(f"{missing}: ")
    text, weights = tmp_path / "text.pt", tmp_path / "weights.pt"
    text.write_text("not a network")
    torch.save(Features().state_dict(), weights)
    for path in (text, weights):
        with pytest.raises(InputError, match=rf"{path.name}: is no TorchScript file. Write it by"):
            kind(path)


@pytest.mark.parametrize(
    ("kind", "network", "said"),
    [
        (LPIPS, Features(), r"fails on 2 tensors of shape \(16, 3, 9, 7\): .*forward"),
        (LPIPS, Nothing(), r"gives \(\) for slices of shape \(16, 3, 9, 7\). It must give one tensor, a row per slice"),
        (
            FeatureNetwork,
            Pixels(),
            r"gives \(34, 3, 9, 7\) for 34 slices. It must give a vector per slice, \(B, F\), F >= 2",
        ),
        (FeatureNetwork, Features(1), r"gives \(34, 1\) for 34 slices"),
        (FeatureNetwork, Tuple(), r"gives a tuple for slices of shape \(16, 3, 9, 7\). It must give one tensor"),
        (FeatureNetwork, nn.Conv2d(3, 4, 20), r"fails on 1 tensor of shape \(16, 3, 9, 7\): .*Kernel size can't be"),
    ],
)
def test_a_network_of_another_kind_is_one_line(tmp_path, kind, network, said):
    path = saved(network, tmp_path)
    pred, truth, brain = volumes()
    arguments = (pred, truth, brain) if kind is LPIPS else (pred, brain)
    with pytest.raises(InputError, match=said) as fault:
        kind(path)(*arguments)
    assert str(fault.value).startswith(f"{path}: ")
    assert "\n" not in str(fault.value)


def test_a_distance_per_pair_is_asked_for(tmp_path):
    class PerPixel(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().mean(1)

    with pytest.raises(
        InputError, match=r"gives \(34, 9, 7\) for 34 pairs of slices. It must give a distance per pair"
    ):
        LPIPS(saved(PerPixel(), tmp_path))(*volumes())


def test_volumes_must_hold_brain_on_one_grid():
    image = torch.rand(4, 4, 4)
    with pytest.raises(ValueError, match="mask is empty"):
        axial_slices(image, 0 * image)
    with pytest.raises(ValueError, match="one 3-D shape"):
        axial_slices(image, image[..., :2])
