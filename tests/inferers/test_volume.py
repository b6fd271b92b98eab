"""A volume is the sum of its slices, and empty slices cost nothing."""

import threading
import time

import pytest
import torch
from torch import nn

from bundle.errors import InputError
from bundle.inferers.volume import VolumeInferer, span
from tests.networks.models import tiny


class Counting(nn.Module):
    """Twice the first half of the channels, and which slices were seen."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        assert x.is_contiguous(memory_format=torch.channels_last)
        return 2 * x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :]


def volume(depth=21):
    x = torch.zeros(1, 8, 16, 24, depth)
    x[:, :4, 4:12, 5:20, 3:18] = torch.rand(1, 4, 8, 15, 15, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0
    x[:, [4, 6, 7]] = 1
    return x


@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
def test_slices_with_brain_only(batch_size):
    network, x = Counting(), volume()
    x[:, :4, :, :, 10] = 0  # a gap in between
    y = VolumeInferer(batch_size)(x, network)
    assert sum(network.batches) == 14 and max(network.batches) <= batch_size
    assert y.shape == (1, 4, 16, 24, 21) and y.dtype == torch.float32
    window = torch.zeros(16, 24, 1)
    window[:, 4:20] = 1  # 16 columns around those of the brain, 5 to 19
    expected = 2 * x[:, :4] + x[:, 4:] * window * (x[:, :4] != 0).flatten(0, 3).any(0)
    assert torch.equal(y, expected)


def test_nothing_but_air():
    network = Counting()
    assert not VolumeInferer()(torch.zeros(1, 8, 16, 16, 5), network).any() and not network.batches


def test_other_channels_out():
    x = volume()
    y = VolumeInferer(4, num_contrasts=4, out_channels=3)(x, lambda slices: slices[:, :3] + 1)
    assert y.shape == (1, 3, 16, 24, 21)
    made = y[..., 4:20, 3:18]  # where the brain is
    assert torch.equal(made, x[:, :3, :, 4:20, 3:18] + 1) and not y[..., :3].any() and not y[..., 18:].any()


@pytest.mark.parametrize(
    ("first", "last", "smallest", "window"),
    [
        (50, 150, 16, (44, 156)),  # 101 voxels in 112
        (40, 167, 16, (40, 168)),  # a multiple of 16 as it is
        (50, 150, 128, (36, 164)),
        (0, 99, 16, (0, 112)),  # at an end
        (95, 191, 16, (80, 192)),
        (3, 188, 16, (0, 192)),
        (50, 150, 512, (0, 192)),  # more than there is
    ],
)
def test_window_around_the_brain(first, last, smallest, window):
    line = torch.zeros(192, dtype=torch.bool)
    line[[first, last]] = True
    assert span(line, smallest) == slice(*window)


def test_a_line_shorter_than_the_multiple_is_taken_whole():
    assert span(torch.ones(5, dtype=torch.bool)) == slice(0, 5)


def test_sides_of_the_window():
    x, sides = torch.zeros(1, 8, 64, 64, 6), []
    x[:, :4, 20:30, 10:50, 2:4] = 1

    def network(slices):
        sides.append(tuple(slices.shape[2:]))
        return slices[:, :4]

    for smallest in (16, 32, 64):
        assert torch.equal(VolumeInferer(smallest_side=smallest)(x, network), x[:, :4])
    assert sides == [(16, 48), (32, 48), (64, 64)]


class Numbering(Counting):
    """The number of each slice, as it is told."""

    def forward(self, x, positions):
        return super().forward(x) * 0 + positions.view(-1, 1, 1, 1)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_network_is_told_which_slices_it_sees(batch_size):
    network, x = Numbering(), volume()
    x[:, :4, :, :, 10] = 0
    y = VolumeInferer(batch_size)(x, network)
    assert y[0, 0, 0, 10].tolist() == [z if 3 <= z < 18 and z != 10 else 0 for z in range(21)]


@pytest.mark.parametrize("workers", [2, 3])
def test_batches_side_by_side(workers):
    x, threads = volume(), torch.get_num_threads()
    network = nn.Conv2d(8, 4, 3, padding=1)
    together = threading.Barrier(2, timeout=30)  # passes only two at a time: they do run side by side
    shares = set()

    def seen(slices):
        together.wait()
        shares.add(torch.get_num_threads())
        return network(slices)

    with torch.no_grad():
        alone = VolumeInferer(4)(x, network)
        assert torch.allclose(
            VolumeInferer(2, workers=workers, amp=False)(x[..., :15], seen), alone[..., :15], atol=1e-6
        )
    assert shares == {max(threads // workers, 1)} and torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["batch_size", "workers"])
@pytest.mark.parametrize("value", [0, 1.5, "two"])
def test_numbers_that_make_no_sense(name, value):
    with pytest.raises(InputError, match=f"{name} is {value!r}. Use --{name} with a whole number of at least 1"):
        VolumeInferer(**{name: value})


def test_a_batch_that_fails_ends_the_others():
    threads, calls = torch.get_num_threads(), []

    def broken(slices):
        calls.append(len(slices))
        time.sleep(0.05)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        VolumeInferer(1, workers=2)(volume(), broken)
    assert len(calls) < 15 and torch.get_num_threads() == threads


class Seeing(nn.Module):
    """The mean over each slice of all that the network is given beyond 2C channels."""

    def forward(self, x):
        assert x.is_contiguous(memory_format=torch.channels_last)
        return x[:, 8:].mean((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:]).contiguous()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_neighbours_come_nearest_first_and_the_brain_ends_with_its_outermost_slices(batch_size):
    x = torch.zeros(1, 8, 8, 8, 12)
    x[:, 0] = torch.arange(12.0)
    x[..., [0, 1, 10, 11]] = 0  # no brain
    x[:, 4] = 1
    seen = {}

    class Network(Seeing):
        def forward(self, x):
            assert x.shape[1] == 8 + 4 * 4
            for given, around in zip(x[:, 0, 0, 0].tolist(), super().forward(x)[:, ::4, 0, 0].tolist()):
                seen[given] = around
            return x[:, :4]

    VolumeInferer(batch_size, neighbours=2)(x, Network())
    assert seen == {z: [max(z - 1, 2), min(z + 1, 9), max(z - 2, 2), min(z + 2, 9)] for z in range(2, 10)}


def test_amp():
    network = nn.Conv2d(8, 4, 3, padding=1)
    with torch.no_grad():
        full, half = (VolumeInferer(4, amp=amp)(volume(), network) for amp in (False, True))
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.02


def test_one_volume_at_a_time():
    with pytest.raises(ValueError, match="batch of 2"):
        VolumeInferer()(torch.zeros(2, 8, 16, 16, 5), Counting())


def test_where_a_scan_ends_its_slices_are_made_without_it():
    """As an exam that lacks it has them, and the scan's brightness elsewhere changes nothing there."""
    network, x = tiny(), volume()
    x[:, 3, ..., :9] = 0
    whole, lacking = x.clone(), x.clone()
    whole[:, 7, ..., :9] = 0
    lacking[:, [3, 7]] = 0
    inferer = VolumeInferer(1)
    partial, without = inferer(whole, network)[:, 1], inferer(lacking, network)[:, 1]
    assert without.any() and torch.equal(partial[..., :9], without[..., :9])
    assert not torch.allclose(partial[..., 9:], without[..., 9:])


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_the_device_tells_in_which_type_of_16_bits(monkeypatch, half):
    monkeypatch.setattr("bundle.inferers.volume.half_type", lambda device: half)
    seen = []

    def network(x):
        seen.append((x[:, :2] @ x[:, 2:]).dtype)
        return x[:, :2]

    VolumeInferer(amp=True)(torch.ones(1, 4, 16, 16, 1), network)
    VolumeInferer()(torch.ones(1, 4, 16, 16, 1), network)
    assert seen == [half, torch.float32]
