import pytest
import torch

from bundle.engines.baseline_batches import NoisyBatch
from bundle.losses.regression import RegressionLoss
from bundle.networks.baselines.pixel_diffusion import PixelDiffusion, noise_of_volume
from tests.engines.test_batches import batch
from tests.networks.baselines.models import CONTRASTS, UNET, small


def question(presence=(1, 0, 1, 0), number=1):
    maps = torch.tensor(presence, dtype=torch.float32)[None, :, None, None].expand(number, -1, 32, 32)
    return torch.cat([torch.rand_like(maps), maps], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("num_steps", [1, 4, 20])
def test_the_right_noise_leads_to_the_right_image(num_steps):
    network, truth = small("palette"), torch.rand(1, 4, 32, 32)
    network.num_steps, seen = num_steps, []

    def oracle(x_t, t, given):
        seen.append((x_t, int(t[0])))
        a = network.alphas_cumprod[t][:, None, None, None]
        return (x_t - a.sqrt() * (2 * truth - 1)) / (1 - a).sqrt()

    network.denoiser.forward = oracle
    x = question()
    made = network(x)
    # the image is the small rest of what is nearly noise: float32 leaves 1e-3 of it
    assert (made - truth)[:, [1, 3]].abs().max() < 2e-3
    assert torch.equal(made[:, [0, 2]], x[:, [0, 2]])
    assert len(seen) == num_steps and seen[0][1] == 999  # from pure noise
    assert all(not x_t[:, [0, 2]].any() for x_t, _ in seen)  # nothing is to be made of what is there
    assert seen[0][0][:, [1, 3]].std() == pytest.approx(1, abs=0.1)


@torch.no_grad()
@pytest.mark.parametrize("name", ["palette", "syndiff"])
def test_a_seed_is_a_sample_and_slices_share_it(name):
    network, x = small(name), question().expand(2, -1, -1, -1)
    made = network(x)
    torch.manual_seed(99)  # the global generator has no part in it
    assert torch.equal(network(x), made)
    assert torch.allclose(made[0], made[1], atol=1e-5)
    network.seed = 1
    assert (network(x) - made)[:, 1].abs().max() > 0.01


def test_noise_of_a_volume_does_not_depend_on_the_batch():
    one, two = (noise_of_volume(torch.Generator().manual_seed(3), torch.zeros(n, 4, 8, 8)) for n in (1, 2))
    assert torch.equal(one[0], two[0]) and torch.equal(two[0], two[1]) and one.std() == pytest.approx(1, abs=0.15)


def test_more_steps_than_noise_levels():
    network = small("palette")
    network.num_steps = 1000
    with pytest.raises(ValueError, match="num_steps: 1000"):
        network(question())


def test_the_loss_falls():
    torch.manual_seed(3)
    network, made = PixelDiffusion(CONTRASTS, UNET), batch()
    prepare, loss_of = NoisyBatch(network, predict_noise=True), RegressionLoss(0.0)
    optimizer = torch.optim.Adam(network.denoiser.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        x_t, truth, args, _ = prepare(made)
        optimizer.zero_grad()
        loss = loss_of(network.denoiser(x_t, *args), truth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:3]) / 3 > 0.7  # E|N(0, 1)| = 0.798 where nothing is known yet
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
