import pytest
import torch
from torch import nn

from bundle.losses.adversarial import AdversarialLoss
from bundle.losses.regression import RegressionLoss

PRESENCE = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]])
COUNTED = torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]])  # the third contrast of the first does not exist


class Mean(nn.Module):
    """Judges an exam, or each contrast of it, by its mean, times a weight."""

    def __init__(self, per_contrast):
        super().__init__()
        self.weight, self.per_contrast, self.seen = nn.Parameter(torch.tensor(0.5)), per_contrast, []

    def forward(self, exam, truth):
        self.seen.append(exam)
        return self.weight * exam.mean((2, 3) if self.per_contrast else (1, 2, 3)).reshape(len(exam), -1, 1, 1)


def question():
    generator = torch.Generator().manual_seed(4)
    image, prediction = torch.rand(2, 3, 4, 16, 16, generator=generator)
    maps = PRESENCE[:, :, None, None].expand_as(image)
    given = torch.cat([0.9 * image * maps, maps], dim=1)
    return prediction.requires_grad_(), {"image": image, "given": given, "presence": PRESENCE, "counted": COUNTED}


def loss_of(discriminator, weight=0.3):
    return AdversarialLoss(RegressionLoss(0.0), discriminator, weight)


def test_value_of_the_whole_exam():
    prediction, truth = question()
    loss = loss_of(Mean(per_contrast=False))
    value = loss(prediction, truth)
    exams = {}
    for name, image in (("made", prediction), ("real", truth["image"])):
        exams[name] = torch.zeros(2, 4, 16, 16)  # the third sample asks for nothing and is not judged
        for b in range(2):
            for j in range(4):
                if COUNTED[b, j]:
                    exams[name][b, j] = image[b, j]
                elif PRESENCE[b, j]:
                    exams[name][b, j] = 0.9 * truth["image"][b, j]
    made, real = (0.5 * exams[name].mean((1, 2, 3)) for name in ("made", "real"))
    rows = COUNTED.bool()
    l1 = (prediction - truth["image"])[rows].abs().mean()
    adversarial = ((made - 1) ** 2).mean()
    discriminator = (((real - 1) ** 2).mean() + (made**2).mean()) / 2
    assert value.item() == pytest.approx(float(l1 + 0.3 * adversarial + discriminator), rel=1e-5)
    assert loss.terms == pytest.approx(
        {"reconstruction": float(l1), "adversarial": float(adversarial), "discriminator": float(discriminator)}
    )


def test_value_per_contrast():
    """The given contrasts of a made exam count as real, the missing ones do not; what does not exist is left out."""
    prediction, truth = question()
    value = loss_of(Mean(per_contrast=True))(prediction, truth)
    hidden, shown = COUNTED.bool(), PRESENCE.bool()
    made, real = (0.5 * image.mean((2, 3))[hidden] for image in (prediction, truth["image"]))
    kept = ((0.45 * truth["image"].mean((2, 3))[shown] - 1) ** 2).mean()
    l1 = (prediction - truth["image"])[hidden].abs().mean()
    adversarial = ((made - 1) ** 2).mean() + kept
    discriminator = (((real - 1) ** 2).mean() + kept + (made**2).mean() + kept) / 2
    assert value.item() == pytest.approx(float(l1 + 0.3 * adversarial + discriminator), rel=1e-5)


@pytest.mark.parametrize("per_contrast", [False, True])
def test_each_network_gets_the_gradient_of_its_own_loss(per_contrast):
    prediction, truth = question()
    discriminator = Mean(per_contrast)
    loss_of(discriminator)(prediction, truth).backward()
    both = prediction.grad.clone(), discriminator.weight.grad.clone()

    # the weight of L_adv changes the generator's gradient, by so much, and not the discriminator's
    other = Mean(per_contrast)
    prediction.grad = None
    loss_of(other, weight=0.0)(prediction, truth).backward()
    assert torch.equal(other.weight.grad, both[1])
    made = discriminator(torch.where(COUNTED.bool()[:, :, None, None], prediction, truth["given"][:, :4]), truth)[
        ..., 0, 0
    ]
    asked = made[COUNTED.bool()] if per_contrast else made[:2, 0]
    kept = ((made[PRESENCE.bool()] - 1) ** 2).mean() if per_contrast else 0
    (expected,) = torch.autograd.grad(0.3 * (((asked - 1) ** 2).mean() + kept), prediction)
    assert torch.allclose(both[0] - prediction.grad, expected, atol=1e-7) and expected.any()
    assert all(weight.requires_grad for weight in discriminator.parameters())  # as before


def test_what_is_not_asked_for_is_not_looked_at():
    prediction, truth = question()
    expected = loss_of(Mean(False))(prediction, truth)
    other = prediction.detach().clone()
    other[COUNTED == 0] = torch.nan
    assert torch.equal(loss_of(Mean(False))(other, truth), expected)


def test_nothing_asked_for_costs_nothing():
    prediction, truth = question()
    discriminator = Mean(False)
    loss = loss_of(discriminator)
    value = loss(prediction, {**truth, "counted": torch.zeros(3, 4)})
    value.backward()
    assert value.item() == 0 and not prediction.grad.any()
    assert discriminator.weight.grad is None and not discriminator.seen
    assert loss.terms == {"reconstruction": 0}


def test_its_parameters_are_those_of_the_discriminator():
    discriminator = Mean(False)
    assert list(loss_of(discriminator).parameters()) == [discriminator.weight]


def test_the_discriminator_is_never_under_autocast():
    class Judge(nn.Module):
        def forward(self, exam, truth):
            judged = torch.nn.functional.conv2d(exam, torch.ones(1, 4, 1, 1))
            kinds.append(judged.dtype)
            return judged

    kinds: list[torch.dtype] = []
    with torch.autocast("cpu", torch.bfloat16):
        AdversarialLoss(RegressionLoss(0.0), Judge())(*question())
    assert kinds == [torch.float32] * 3
