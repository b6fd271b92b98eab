import pytest
import torch

from bundle.transforms.appearance import RandAppearanced


def made_up(contrasts=3, side=48):
    """A disc with a smooth pattern, the same in every channel, 0 around it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    disc = (0.5 + 0.3 * torch.sin(5 * x) * torch.cos(4 * y)) * (x**2 + y**2 < 0.7)
    return disc.expand(contrasts, -1, -1).clone()


def changed(image, seed=0, **options):
    change = RandAppearanced(**options)
    change.set_random_state(seed)
    return change({"image": image})["seen"]


@pytest.mark.parametrize("seed", range(5))
def test_background_stays_zero_and_the_range_holds(seed):
    image = made_up()
    image[1] = 0  # a contrast that is not there
    before = image.clone()
    seen = changed(image, seed, prob=1.0, noise=0.2)
    assert torch.equal(image, before)  # the truth stays as it was
    assert seen.shape == image.shape and seen.dtype == torch.float32
    assert seen.min() >= 0 and seen.max() <= 1
    assert not seen[image == 0].any()
    assert (seen[0] - image[0]).abs().max() > 0.05


def test_channels_change_independently():
    seen = changed(made_up(), prob=1.0)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (seen[a] - seen[b]).abs().mean() > 0.005


def test_anatomy_stays():
    image = made_up()
    for seed in range(5):
        for channel in changed(image, seed):
            inside = image[0] > 0
            assert torch.corrcoef(torch.stack([channel[inside], image[0][inside]]))[0, 1] > 0.9


def test_probability_and_seed():
    image = made_up()
    assert torch.equal(changed(image, prob=0.0), image)
    assert torch.equal(changed(image, 3, prob=1.0), changed(image, 3, prob=1.0))
    assert not torch.equal(changed(image, 3, prob=1.0), changed(image, 4, prob=1.0))


def test_a_slice_and_its_neighbours_change_alike():
    image = made_up()
    seen = changed(torch.cat([image] * 3), prob=1.0, noise=0.0, neighbours=1)
    assert seen.shape == (9, 48, 48)
    assert torch.equal(seen[:3], seen[3:6]) and torch.equal(seen[:3], seen[6:])
    assert (seen[0] - seen[1]).abs().mean() > 0.005  # the contrasts do not
    noisy = changed(torch.cat([image] * 3), prob=1.0, noise=0.2, neighbours=1)
    assert (noisy[0] - noisy[3]).abs().mean() > 0.001  # a scanner's noise is another in each slice
