import pytest
import torch

from bundle.engines.baseline_batches import ExamBatch, NoisyBatch, show_again
from bundle.engines.batches import RegressionBatch
from tests.engines.test_batches import HIDDEN, batch
from tests.networks.baselines.models import small


def test_input_and_truth_are_those_of_the_unet():
    made = batch()
    given, truth = ExamBatch()(made)
    expected, known = RegressionBatch()(made)
    assert torch.equal(given, expected) and torch.equal(truth["given"], given)
    assert torch.equal(truth["image"], known["image"]) and torch.equal(truth["counted"], known["counted"])
    assert torch.equal(truth["presence"], made["presence"])


@pytest.mark.parametrize(
    ("progress", "contrasts", "most"),
    [
        (0.0, 4, 1),
        (0.24, 4, 1),
        (0.25, 4, 2),
        (0.49, 4, 2),
        (0.5, 4, 3),
        (1.0, 4, 3),
        (0.0, 2, 1),
        (0.9, 2, 1),
        (0.5, 6, 5),
    ],
)
def test_the_curriculum_hides_few_contrasts_first(progress, contrasts, most):
    exists = torch.ones(200, contrasts)
    presence = torch.zeros(200, contrasts)
    presence[:, 0] = 1
    made = {**batch(exists.tolist(), presence.tolist(), side=1)}
    given, truth = ExamBatch(curriculum=True)(made, progress=progress)
    hidden = truth["counted"].sum(1)
    assert (hidden == min(most, contrasts - 1)).all()
    assert torch.equal(truth["counted"] + truth["presence"], exists)
    assert torch.equal(given[:, contrasts:, 0, 0], truth["presence"])
    # each of the hidden ones is shown again equally often
    if most < contrasts - 1:
        shares = truth["counted"].mean(0)[1:]
        assert (shares - most / (contrasts - 1)).abs().max() < 0.12
    plain = ExamBatch()(made, progress=progress)[1]
    assert (plain["counted"].sum(1) == contrasts - 1).all()  # without a curriculum as they were drawn


def test_only_what_exists_is_shown_again():
    exists = torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
    presence = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]])
    shown = show_again(exists, presence, 1)
    assert (shown <= exists).all() and (shown >= presence).all()
    assert (exists - shown).sum(1).tolist() == [1, 0, 1]
    assert torch.equal(show_again(exists, presence, 3), presence)


@pytest.mark.parametrize("predict_noise", [True, False])
def test_noisy_contrasts_in_the_place_of_the_hidden_ones(predict_noise):
    made, model = batch(), small("palette" if predict_noise else "syndiff")
    x_t, truth, (t, given), kwargs = NoisyBatch(model, predict_noise)(made)
    assert kwargs == {} and torch.equal(truth["x_t"], x_t) and torch.equal(truth["t"], t)
    assert torch.equal(given, ExamBatch()(made)[0])
    assert t.shape == (3,) and t.dtype == torch.long
    for b in range(3):
        a = model.alphas_cumprod[t[b]]
        for j in range(4):
            if (b, j) not in HIDDEN:
                assert not x_t[b, j].any()
                continue
            x_0 = 2 * made["image"][b, j] - 1
            noise = (x_t[b, j] - a.sqrt() * x_0) / (1 - a).sqrt()
            if predict_noise:
                assert torch.allclose(truth["image"][b, j], noise, atol=1e-2)
            else:
                assert torch.equal(truth["image"][b, j], made["image"][b, j])
            assert abs(noise.std() - 1) < 0.15 and abs(noise.mean()) < 0.15


def test_all_steps_are_drawn():
    model = small("syndiff")
    prepare, made = NoisyBatch(model, predict_noise=False), batch(side=1)
    drawn = torch.cat([prepare(made)[2][0] for _ in range(60)])
    assert sorted(set(drawn.tolist())) == [0, 1, 2, 3]
