import numpy as np
import pytest
import torch

from bundle.data.collate import ExchangeBrightness


def sample(level, seed, contrasts=2, side=16):
    """A window whose contrasts have about that brightness inside a square brain, and are 0 around it."""
    rng = np.random.default_rng(seed)
    brain = torch.zeros(1, side, side)
    brain[:, 4:12, 4:12] = 1
    levels = torch.tensor([level, 0.8 * level])[:contrasts, None, None]
    image = (levels + torch.from_numpy(rng.uniform(-0.1, 0.1, (contrasts, side, side))).float()) * brain
    return {"image": image, "seen": image * 0.9, "brain": brain}


def medians(batch, key="image"):
    """NumPy's median of each contrast inside the brain, which is that of an even number of pixels."""
    return np.array([[np.median(c[b[0] > 0]) for c in i] for i, b in zip(batch[key].numpy(), batch["brain"].numpy())])


def exchanged(samples, prob=1.0, seed=0):
    torch.manual_seed(seed)
    return ExchangeBrightness(prob)(samples)


def test_an_exam_gets_the_medians_of_another_and_keeps_its_anatomy():
    exams = [sample(0.4, 0), sample(0.6, 1)]
    own = medians(exchanged(exams, prob=0.0))
    swaps = 0
    for seed in range(8):
        batch = exchanged([exams], seed=seed)  # a list, as a data set gives that cuts several windows
        found = medians(batch)
        if np.abs(found - own).max() < 1e-3:
            continue  # each lent to itself
        swaps += 1
        np.testing.assert_allclose(found, own[::-1], atol=0.01)  # all contrasts from the same lender
        for before, after in zip(exams, batch["image"]):
            inside = before["brain"][0] > 0
            darkest_first = before["image"][0][inside].argsort()
            assert (after[0][inside][darkest_first].diff() >= 0).all()
            assert not after[:, ~inside].any()
    assert 0 < swaps < 8


def test_what_is_shown_changes_as_what_is_asked():
    exams = [sample(0.4, 0), sample(0.6, 1)]
    for seed in range(4):
        batch = exchanged(exams, seed=seed)
        for n, exam in enumerate(exams):
            inside = exam["brain"][0] > 0
            exponents = [batch[key][n][:, inside].log() / exam[key][:, inside].log() for key in ("image", "seen")]
            torch.testing.assert_close(exponents[0], exponents[1], rtol=1e-3, atol=1e-3)


def test_without_brain_or_with_a_missing_contrast_nothing_changes():
    empty, lacking = sample(0.3, 0), sample(0.5, 1)
    empty["brain"] = torch.zeros_like(empty["brain"])
    lacking["image"][1] = 0
    lacking["seen"][1] = 0
    for seed in range(6):
        batch = exchanged([empty, lacking, sample(0.7, 2)], seed=seed)
        for n, exam in enumerate((empty, lacking)):
            assert torch.equal(batch["image"][n], exam["image"])
            assert torch.equal(batch["seen"][n], exam["seen"])
        assert torch.isfinite(batch["image"]).all()


def test_the_change_is_bounded():
    batch = exchanged([sample(0.11, 0), sample(0.89, 1)], seed=1)
    raw = exchanged([sample(0.11, 0), sample(0.89, 1)], prob=0.0)
    inside = batch["brain"][0, 0] > 0
    exponent = batch["image"][0][:, inside].log() / raw["image"][0][:, inside].log()
    assert float(exponent.nan_to_num(1).min()) >= 0.4 - 1e-3


def test_a_probability_is_asked_for():
    with pytest.raises(ValueError, match="must lie in 0..1"):
        ExchangeBrightness(1.5)


def test_neighbouring_slices_change_as_their_own():
    exams = [sample(0.4, 0), sample(0.6, 1)]
    stacked = [{**e, **{key: torch.cat([e[key], 0.5 * e[key], e[key]]) for key in ("image", "seen")}} for e in exams]
    for seed in range(4):
        torch.manual_seed(seed)
        batch = ExchangeBrightness(1.0, neighbours=1)(stacked)
        expected = exchanged(exams, seed=seed)
        for key in ("image", "seen"):
            assert batch[key].shape == (2, 6, 16, 16)
            torch.testing.assert_close(batch[key][:, :2], expected[key])
            torch.testing.assert_close(batch[key][:, 4:], expected[key])
            inside = batch["brain"][0, 0] > 0
            exponents = [batch[key][0, c][inside].log() / stacked[0][key][c][inside].log() for c in (0, 2)]
            torch.testing.assert_close(exponents[0].mean(), exponents[1].mean(), rtol=1e-3, atol=1e-3)
