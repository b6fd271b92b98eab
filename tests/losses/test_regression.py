import pytest
import torch

from bundle.losses.regression import RegressionLoss
from bundle.losses.structure_aware import StructureAwareLoss

GENERATOR = torch.Generator().manual_seed(2)
TRUTH = torch.rand(2, 4, 32, 32, generator=GENERATOR)
COUNTED = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0]])


def test_only_the_hidden_ones_are_scored():
    prediction = TRUTH.clone()
    prediction[COUNTED == 0] += 5
    loss = RegressionLoss(frequency_weight=0.1)
    assert loss(prediction, {"image": TRUTH, "counted": COUNTED}).item() == pytest.approx(0, abs=1e-5)
    prediction[0, 3] += 0.3  # one of the three
    plain = RegressionLoss(frequency_weight=0.0)(prediction, {"image": TRUTH, "counted": COUNTED})
    assert plain.item() == pytest.approx(0.1, abs=1e-6)


def test_it_is_the_term_of_the_model():
    prediction = torch.rand(2, 4, 32, 32, generator=GENERATOR)
    expected = StructureAwareLoss(0.1)(prediction, TRUTH, COUNTED)
    assert torch.equal(RegressionLoss(0.1)(prediction, {"image": TRUTH, "counted": COUNTED}), expected)


def test_nothing_hidden_costs_nothing_and_can_be_differentiated():
    prediction = TRUTH.clone().requires_grad_()
    loss = RegressionLoss(0.1)(prediction, {"image": TRUTH + 1, "counted": torch.zeros(2, 4)})
    loss.backward()
    assert loss.item() == 0 and not prediction.grad.any()
