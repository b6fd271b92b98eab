import copy
import math

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset

from bundle.engines.adversarial import AdversarialStage
from bundle.engines.baseline_batches import ExamBatch, NoisyBatch
from bundle.engines.batches import ValidationBatch
from bundle.inferers.training import AutocastInferer
from bundle.losses.adversarial import AdversarialLoss
from bundle.losses.regression import RegressionLoss
from bundle.networks.baselines.adversarial_diffusion import TransitionDiscriminator
from bundle.networks.baselines.discriminator import ExamDiscriminator
from bundle.transforms.hide import RandHideContrastsd
from tests.engines.test_stage import BATCHES, Kill, OffBy, same, saved, subjects
from tests.networks.baselines.models import small

EPOCHS = 3


def stage(folder, name="pix2pix", seed=0, **options):
    """An adversarial stage on in-memory slices, its networks fresh from a seed."""
    torch.manual_seed(seed)
    model = small(name)
    diffusion = name == "syndiff"
    if diffusion:
        discriminator = TransitionDiscriminator(4, channels=4)
    else:
        discriminator = ExamDiscriminator(4, per_contrast=name == "mmgan", channels=4)
    data = list(subjects(2 * BATCHES))
    question = {**data[0], "presence": torch.tensor([1.0, 0, 0, 0])}
    epochs = options.get("max_epochs", EPOCHS)
    made = AdversarialStage(
        name="adversarial", model=model, network=model.generator if diffusion else model,
        output_dir=str(folder), device=torch.device("cpu"),
        loss=AdversarialLoss(RegressionLoss(0.1), discriminator, weight=0.05),
        train_loader=DataLoader(Dataset(data, RandHideContrastsd()), batch_size=2, shuffle=True),
        val_loader=DataLoader(Dataset([question]), batch_size=1), inferer=AutocastInferer(),
        prepare_batch=NoisyBatch(model, False) if diffusion else ExamBatch(curriculum=name == "mmgan"),
        val_prepare_batch=ValidationBatch(), val_inferer=OffBy(data[0]["image"], *[0.1] * epochs),
        **{"max_epochs": EPOCHS, "learning_rate": 3e-3, "ema_momentum": 0.1, **options},
    )  # fmt: skip
    made.terms = []
    made.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: made.terms.append(made.loss.terms))
    return made


def killed(folder, after, **options):
    """A stage that was killed after so many iterations."""
    made = stage(folder, **options)

    def kill(engine):
        if engine.state.iteration == after:
            raise Kill

    made.trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
    with pytest.raises(Kill):
        made.run()
    return made


@pytest.mark.parametrize("name", ["pix2pix", "mmgan", "resvit", "syndiff"])
def test_the_loss_falls_and_the_discriminator_learns(tmp_path, name):
    made = stage(tmp_path, name, max_epochs=8, discriminator_learning_rate=3e-3)
    before = copy.deepcopy(made.loss.state_dict())
    made.run()
    assert len(made.terms) == 8 * BATCHES
    reconstruction = [terms["reconstruction"] for terms in made.terms]
    discriminator = [terms["discriminator"] for terms in made.terms if "discriminator" in terms]
    assert all(map(math.isfinite, reconstruction + discriminator))
    assert sum(reconstruction[-8:]) < 0.9 * sum(reconstruction[:8])
    assert sum(discriminator[-8:]) < 0.9 * sum(discriminator[:8])
    after = made.loss.state_dict()
    assert all(not torch.equal(after[key], before[key]) for key in before if "weight" in key)


def test_two_groups_of_one_adam(tmp_path):
    made = stage(tmp_path, discriminator_learning_rate=1e-4, discriminator_betas=[0.4, 0.9])
    generator, discriminator = made.optimizer.param_groups
    assert {id(p) for p in generator["params"]} == {id(p) for p in made.network.parameters()}
    assert {id(p) for p in discriminator["params"]} == {id(p) for p in made.loss.discriminator.parameters()}
    assert generator["betas"] == (0.9, 0.999) and discriminator["betas"] == (0.4, 0.9)
    assert (generator["initial_lr"], discriminator["initial_lr"]) == (3e-3, 1e-4)
    assert made.trainer.optimizer is made.optimizer
    rates = []
    made.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda _: rates.append([group["lr"] for group in made.optimizer.param_groups])
    )
    made.run()
    assert max(rate for rate, _ in rates) == pytest.approx(3e-3) and rates[-1][0] < 1e-4  # warmed up, then a cosine
    assert all(b == pytest.approx(a / 30) for a, b in rates)


def test_the_generator_alone_is_averaged_and_saved(tmp_path):
    made = stage(tmp_path)
    made.run()
    result, last = saved(made.folder / "finished.pt"), saved(made.folder / "last.pt")
    assert result.keys() == small("pix2pix").state_dict().keys()
    assert same(result, last["ema"]) and not same(result, last["network"])
    assert same(made.loss.state_dict(), last["loss"])


@pytest.mark.parametrize(("name", "after"), [("pix2pix", 1), ("mmgan", BATCHES + 2), ("syndiff", 2 * BATCHES + 1)])
def test_resume_gives_the_weights_of_an_uninterrupted_run(tmp_path, name, after):
    whole = stage(tmp_path / "whole", name)
    whole.run()
    killed(tmp_path, after, name=name)
    over = (after - 1) // BATCHES
    again = stage(tmp_path, name, seed=9 if over else 0)
    again.run()
    assert len(again.terms) == (EPOCHS - over) * BATCHES
    for terms, expected in zip(again.terms, whole.terms[over * BATCHES :]):
        assert terms == pytest.approx(expected, rel=1e-3)
    last, expected = (saved(folder / "adversarial" / "last.pt") for folder in (tmp_path, tmp_path / "whole"))
    for part in ("network", "ema", "loss"):
        for key, value in expected[part].items():
            assert torch.allclose(last[part][key], value, atol=1e-5), (part, key)


def test_the_batches_are_told_how_far_the_training_is(tmp_path):
    heard = []

    class Listening(ExamBatch):
        def __call__(self, batch, device=None, non_blocking=False, progress=1.0, **other):
            heard.append(progress)
            return super().__call__(batch, device, non_blocking, progress, **other)

    made = stage(tmp_path, max_epochs=4)
    made.trainer.prepare_batch = Listening(curriculum=True)
    made.run()
    assert heard == [k / 4 for k in range(4) for _ in range(BATCHES)]


def test_the_terms_of_the_loss_are_logged(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    made = stage(tmp_path, max_epochs=2)
    made.run()
    events = accumulator.EventAccumulator(str(made.folder))
    events.Reload()
    assert {"reconstruction", "adversarial", "discriminator", "psnr"} < set(events.Tags()["scalars"])
    logged = [event.value for event in events.Scalars("reconstruction")]
    assert logged == pytest.approx([terms["reconstruction"] for terms in made.terms], rel=1e-5)
