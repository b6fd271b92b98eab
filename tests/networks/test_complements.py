"""The training pass with complementary subsets is the network's own, row by row."""

from __future__ import annotations

import pytest
import torch

from bundle.networks.complements import ask, complete_both, side_by_side
from tests.networks.models import tiny

EXISTS = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0]])
SHOWN = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]])


def test_each_contrast_is_asked_for_once_where_it_is_hidden():
    question = ask(EXISTS, SHOWN, torch.zeros(4, 4))
    rows = torch.arange(4)[:, None] + 4 * question.row
    shown = question.presence[rows, torch.arange(4)]
    assert not shown[question.counted > 0].any()
    assert question.counted.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]]
    assert torch.equal(question.presence[:4] + question.presence[4:], EXISTS)


def test_own_asks_where_it_is_shown():
    question = ask(EXISTS, SHOWN, EXISTS)
    rows = torch.arange(4)[:, None] + 4 * question.row
    assert (question.presence[rows, torch.arange(4)] == EXISTS)[question.counted > 0].all()


def test_it_is_what_the_network_makes_of_both_subsets():
    network = tiny().disentanglement
    torch.nn.init.normal_(network.style_bank.mean)
    image = torch.rand(4, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * EXISTS[:, :, None, None]
    own = torch.zeros(4, 4)
    own[0, 0] = 1
    with torch.no_grad():
        style = network.encode_style(image, EXISTS)
        result = complete_both(network, image, EXISTS, SHOWN, own)  # moves the mean style a little
        question = ask(EXISTS, SHOWN, own)
        part = question.presence.any(1)  # the last sample has nothing but what it shows
        structure = network.encode_structure(image.repeat(2, 1, 1, 1)[part], question.presence[part])
        made = torch.zeros(8, 4, 32, 32)
        made[part] = network.reconstruct_unseen(structure, torch.ones(7, 4))
        expected = torch.where(question.row[:, :, None, None], made[4:], made[:4])
        told = network.reconstruct(structure, style.repeat(2, 1, 1)[part], torch.ones(7, 4))
        expected[0, 0] = told[0, 0]
    torch.testing.assert_close(result["style"], style, atol=1e-5, rtol=1e-4)
    counted = question.counted.bool()
    torch.testing.assert_close(result["reconstruction"][counted], expected[counted], atol=1e-4, rtol=1e-4)
    segmented = network.segmentation([scale[:4] for scale in structure.scales])
    torch.testing.assert_close(result["segmentation"], segmented, atol=1e-4, rtol=1e-4)


def test_modules_side_by_side_keep_their_own_gradients():
    modules = [torch.nn.Linear(3, 2) for _ in range(3)]
    inputs = torch.rand(3, 5, 3)
    result = side_by_side(modules, inputs)
    for j, module in enumerate(modules):
        torch.testing.assert_close(result[j], module(inputs[j]))
    result[1].sum().backward()
    weight = modules[1].weight.grad
    assert weight is not None and torch.allclose(weight[0], inputs[1].sum(0))
    assert not modules[0].weight.grad.any()


def test_other_forms_of_the_network_are_refused():
    image, exists, shown = torch.rand(1, 4, 32, 32), torch.ones(1, 4), torch.tensor([[1.0, 0, 0, 0]])
    with pytest.raises(ValueError, match="need MMSF and MSSE"):
        complete_both(tiny(msse=False).disentanglement, image, exists, shown, torch.zeros(1, 4))
