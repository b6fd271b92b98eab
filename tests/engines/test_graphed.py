"""A step on the CPU trains, averages, keeps time and stops at what is not finite. No test here needs a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bundle.engines.graphed import GraphedStep, in_parts


def problem(rate=0.05):
    """A line to be fitted: y = 3 x - 1."""
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 16)[:, None]
    batch = {"x": x, "y": 3 * x - 1}
    return (
        network,
        batch,
        GraphedStep(network, lambda b: ((network(b["x"]) - b["y"]) ** 2).mean(), batch, learning_rate=rate),
    )


def endless(batch):
    while True:
        yield batch


def test_it_trains_for_the_time_that_it_is_given():
    network, batch, step = problem()
    log = []
    steps = step.run(endless(batch), 1.5, every=50, log=log.append)
    assert steps > 100 and log[-1]["loss"] < 1e-3 < log[0]["loss"]
    assert network.weight.item() == pytest.approx(3, abs=0.05) and network.bias.item() == pytest.approx(-1, abs=0.05)
    assert step.rate.item() < 0.001  # a cosine to (nearly) zero


def test_the_average_follows_the_weights():
    network, batch, step = problem()
    step.share.fill_(0.5)
    step.rate.fill_(0.1)
    start, expected = network.weight.detach().clone(), network.weight.detach().clone()
    for _ in range(3):
        step.step()
        expected = expected + 0.5 * (network.weight.detach() - expected)
    torch.testing.assert_close(step.averaged()["weight"], expected)
    assert not torch.equal(step.averaged()["weight"], start)


def test_no_time_and_no_finite_loss_are_refused():
    _, batch, step = problem()
    with pytest.raises(ValueError, match="must be above 0"):
        step.run(endless(batch), -1.0)
    with pytest.raises(FloatingPointError, match="after 2 steps"):
        step.run(endless({"x": batch["x"], "y": batch["y"] * torch.nan}), 5.0, every=2)


def test_batches_are_cut_into_parts_in_order():
    batches = [
        {"a": torch.arange(4), "b": torch.arange(8).reshape(4, 2)},
        {"a": torch.arange(4, 8), "b": torch.zeros(4, 2)},
    ]
    parts = list(in_parts(batches, 2))
    assert [part["a"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert parts[1]["b"].tolist() == [[4, 5], [6, 7]]
