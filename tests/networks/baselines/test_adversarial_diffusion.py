import math

import pytest
import torch

from bundle.networks.baselines.adversarial_diffusion import TransitionDiscriminator, large_steps, posterior
from tests.networks.baselines.models import small


def test_large_steps_are_the_integral_of_beta():
    """alpha_bar(t) = exp(-int_0^t beta), beta from 0.1 to 20 over the unit of time."""
    fine = torch.linspace(0, 1, 40001, dtype=torch.float64)
    beta = 0.1 + (20 - 0.1) * fine
    whole = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(beta, fine)])
    assert torch.allclose(large_steps(4), torch.exp(-whole[10000::10000]).float(), rtol=1e-4)
    assert large_steps(4)[-1] == pytest.approx(math.exp(-10.05), rel=1e-4)  # nearly pure noise


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_posterior_leads_back_along_the_forward_process(step):
    """x_t from x_0, then x_{t-1} from both: together they have the moments of x_{t-1} from x_0, then x_t from it."""
    n, a_bar = 400_000, large_steps(4)
    before, now = float(a_bar[step - 1]), float(a_bar[step])
    x_0 = torch.full((1, 1, 1, n), 0.7)
    x_t = now**0.5 * x_0 + (1 - now) ** 0.5 * torch.randn(1, 1, 1, n)
    x = posterior(x_0, x_t, torch.tensor([step]), torch.randn(1, 1, 1, n), a_bar)
    assert x.mean().item() == pytest.approx(before**0.5 * 0.7, abs=0.01)
    assert x.var().item() == pytest.approx(1 - before, abs=0.01)
    covariance = ((x - x.mean()) * (x_t - x_t.mean())).mean().item()
    assert covariance == pytest.approx((now / before) ** 0.5 * (1 - before), abs=0.01)


def test_the_last_step_ends_at_the_clean_image():
    x_0, x_t, noise = torch.rand(3, 2, 4, 8, 8)
    made = posterior(x_0, x_t, torch.tensor([0, 0]), noise, large_steps(4))
    assert torch.allclose(made, x_0, atol=1e-5)


@torch.no_grad()
def test_each_step_predicts_the_image_and_adds_less_noise():
    network, truth, seen = small("syndiff"), torch.rand(1, 4, 32, 32), []

    def oracle(x_t, t, given):
        seen.append((int(t[0]), x_t))
        return truth

    network.generator.forward = oracle
    x = torch.cat([torch.rand(1, 4, 32, 32), torch.ones(1, 4, 32, 32)], dim=1)
    x[:, [5, 6]] = 0
    made = network(x)
    assert torch.allclose(made[:, [1, 2]], truth[:, [1, 2]], atol=1e-5) and torch.equal(made[:, [0, 3]], x[:, [0, 3]])
    assert [t for t, _ in seen] == [3, 2, 1, 0] and all(not x_t[:, [0, 3]].any() for _, x_t in seen)
    for t, x_t in seen:
        signal = network.alphas_cumprod[t].sqrt() * (2 * truth - 1)
        noise = (x_t - signal)[:, [1, 2]].std().item()
        assert noise == pytest.approx(float((1 - network.alphas_cumprod[t]).sqrt()), rel=0.1)


def test_the_discriminator_sees_the_step_and_its_time():
    network = TransitionDiscriminator(4, channels=4)
    exam, x_t = torch.rand(2, 4, 64, 64), torch.randn(2, 4, 64, 64)
    counted = torch.tensor([[0.0, 1, 1, 0], [1, 1, 0, 1]])
    truth = {"x_t": x_t * counted[:, :, None, None], "counted": counted, "t": torch.tensor([2, 0])}

    def judge(exam, **other):
        torch.manual_seed(5)
        return network(exam, {**truth, **other})

    judged = judge(exam)
    assert judged.shape == (2, 1, 6, 6)
    other = exam.clone()
    other[0, [0, 3]], other[1, 2] = 9, -9  # nothing is to be made of those
    assert torch.equal(judge(other), judged)
    other[0, 1] = 1 - other[0, 1]
    assert not torch.equal(judge(other)[0], judged[0]) and torch.equal(judge(other)[1], judged[1])
    assert not torch.equal(judge(exam, t=torch.tensor([1, 0]))[0], judged[0])
    assert not torch.equal(judge(exam, x_t=truth["x_t"] * 0.5), judged)
    # the time itself is told: in the last step x_{t-1} is x_0, whatever alpha_bar is
    network.alphas_cumprod.fill_(0.5)
    first = judge(exam, t=torch.tensor([0, 0]))[0]
    network.register_buffer("alphas_cumprod", torch.full((2,), 0.5), persistent=False)
    assert not torch.equal(judge(exam, t=torch.tensor([0, 0]))[0], first)
