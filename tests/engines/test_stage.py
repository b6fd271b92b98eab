import copy
import math

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, set_rnd
from monai.inferers import Inferer

from bundle.engines.batches import AutoencoderBatch, DiffusionBatch, DisentanglementBatch, ValidationBatch
from bundle.engines.stage import LatentScale, Stage, export
from bundle.inferers.training import AutocastInferer, DenoisingInferer
from bundle.losses.autoencoder import AutoencoderLoss
from bundle.losses.msg_ldm import DisentanglementLoss
from bundle.transforms.hide import RandHideContrastsd
from tests.networks.models import tiny

EPOCHS, BATCHES, SIDE = 3, 4, 32


class Kill(BaseException):
    """What no handler may catch, as a process that is killed."""


class OffBy(Inferer):
    """The truth, off by another amount in each validation."""

    def __init__(self, truth, *errors):
        self.truth, self.errors = truth, list(errors)

    def __call__(self, inputs, network, *args, **kwargs):
        return self.truth[None] + self.errors.pop(0)


def subjects(number):
    """Slices whose contrasts are functions of one pattern."""
    generator = torch.Generator().manual_seed(7)
    y, x = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    for _ in range(number):
        a, b, c, d = torch.rand(4, generator=generator)
        pattern = 0.5 + 0.4 * torch.sin(2 + 9 * a * x + 5 * b) * torch.cos(9 * c * y + 5 * d)
        image = torch.stack([pattern, pattern.sqrt(), 1 - pattern, pattern**2])
        yield {
            "image": image, "seen": image, "exists": torch.ones(4), "brain": torch.ones(1, SIDE, SIDE),
            "regions": (pattern > torch.tensor([0.6, 0.7, 0.8])[:, None, None]).float(), "valid": torch.ones(3),
        }  # fmt: skip


def settings(name, model):
    """What makes the stages differ."""
    return {
        "autoencoder": {
            "network": model.autoencoder, "loss": AutoencoderLoss(), "inferer": AutocastInferer(),
            "prepare_batch": AutoencoderBatch(size=16, windows=2),
        },
        "disentanglement": {
            "network": model.disentanglement, "loss": DisentanglementLoss(), "inferer": AutocastInferer(),
            "prepare_batch": DisentanglementBatch(),
        },
        "diffusion": {
            "network": model.diffusion, "loss": torch.nn.MSELoss(), "inferer": DenoisingInferer(),
            "prepare_batch": DiffusionBatch(model),
        },
    }[name]  # fmt: skip


def stage(folder, name="disentanglement", seed=0, errors=(0.1,) * EPOCHS, **options):
    """A stage on in-memory slices, its model fresh from a seed."""
    torch.manual_seed(seed)
    model = tiny()
    data = list(subjects(2 * BATCHES))
    question = {**data[0], "presence": torch.tensor([1.0, 0, 0, 0])}
    made = Stage(
        name=name, model=model, output_dir=str(folder), device=torch.device("cpu"),
        val_loader=DataLoader(Dataset([question]), batch_size=1),
        val_prepare_batch=ValidationBatch(), val_inferer=OffBy(data[0]["image"], *errors),
        **{
            "train_loader": DataLoader(Dataset(data, RandHideContrastsd()), batch_size=2, shuffle=True),
            "max_epochs": EPOCHS, "learning_rate": 3e-3, "ema_momentum": 0.1, **settings(name, model), **options,
        },
    )  # fmt: skip
    made.losses = []
    made.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: made.losses.append(engine.state.output["loss"].item())
    )
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


def saved(path):
    return torch.load(path, weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def asked(made):
    """The loss on the same questions (contrasts hidden, windows, noise and its level) whenever it is called."""
    torch.manual_seed(5)
    set_rnd(made.train_loader.dataset, 5)
    trainer, losses = made.trainer, []
    for batch in [batch for _ in range(4) for batch in made.train_loader]:
        inputs, targets, *further = trainer.prepare_batch(batch, torch.device("cpu"), False)
        args, kwargs = further or ((), {})
        with torch.no_grad():
            losses.append(made.loss(trainer.inferer(inputs, made.network, *args, **kwargs), targets).item())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", ["autoencoder", "disentanglement", "diffusion"])
def test_loss_falls_and_only_its_own_part_changes(tmp_path, name):
    made = stage(tmp_path, name, max_epochs=8, errors=[0.1] * 8)
    before, loss = copy.deepcopy(made.model.state_dict()), asked(made)
    made.run()
    assert len(made.losses) == 8 * BATCHES and all(math.isfinite(loss) for loss in made.losses)
    assert asked(made) < 0.9 * loss
    result = saved(tmp_path / name / "finished.pt")
    assert {key.split(".")[0] for key in result if not torch.equal(result[key], before[key])} == {name}


def test_what_is_saved_is_the_average_of_the_weights(tmp_path):
    made = stage(tmp_path)
    made.run()
    result, last = saved(tmp_path / made.name / "finished.pt"), saved(tmp_path / made.name / "last.pt")
    mine = {key.removeprefix("disentanglement."): value for key, value in result.items() if "disentanglement." in key}
    assert same(mine, last["ema"])
    assert not same(mine, last["network"])
    assert same(made.model.state_dict(), result)  # the next stage goes on with them


def test_temperature_of_the_style_loss_is_optimised(tmp_path):
    made = stage(tmp_path, max_epochs=1)
    temperature = made.loss.sc.log_tau
    assert any(p is temperature for group in made.optimizer.param_groups for p in group["params"])
    before = temperature.item()
    made.run()
    assert abs(temperature.item() - before) > 1e-4
    assert saved(tmp_path / made.name / "last.pt")["loss"]["sc.log_tau"] == temperature


def test_best_is_the_best_epoch(tmp_path):
    made = stage(tmp_path, errors=(0.2, 0.05, 0.1))
    averages = []
    made.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: averages.append(copy.deepcopy(made.ema.ema_model.state_dict()))
    )
    made.run()
    best = saved(tmp_path / made.name / "best.pt")
    assert [same(best, average) for average in averages] == [False, True, False]


def test_best_survives_a_kill(tmp_path):
    killed(tmp_path, after=BATCHES + 1, errors=(0.05,))
    before = saved(tmp_path / "disentanglement" / "best.pt")
    stage(tmp_path, errors=(0.2, 0.2)).run()
    assert same(saved(tmp_path / "disentanglement" / "best.pt"), before)


@pytest.mark.parametrize("after", [1, BATCHES + 2, 2 * BATCHES, EPOCHS * BATCHES - 1])
def test_resume_goes_on_at_the_epoch_it_was_in(tmp_path, after):
    whole = stage(tmp_path / "whole")
    whole.run()
    killed(tmp_path, after)
    # a checkpoint is written when an epoch is over; the kill at its very last iteration comes before that
    over = (after - 1) // BATCHES
    again = stage(tmp_path, seed=9, errors=[0.1] * EPOCHS)  # its fresh weights must not matter once there are others
    if not over:
        again.model.load_state_dict(stage(tmp_path / "other").model.state_dict())
        again.ema.ema_model.load_state_dict(again.network.state_dict())
    again.run()
    assert len(again.losses) == (EPOCHS - over) * BATCHES
    assert again.trainer.state.epoch == EPOCHS and again.trainer.state.iteration == EPOCHS * BATCHES
    assert again.losses == pytest.approx(whole.losses[over * BATCHES :], rel=1e-4)
    last, expected = (saved(folder / "disentanglement" / "last.pt") for folder in (tmp_path, tmp_path / "whole"))
    for part in ("network", "ema"):
        for key, value in expected[part].items():
            assert torch.allclose(last[part][key], value, atol=1e-5), (part, key)
    assert last["schedule"]["last_epoch"] == expected["schedule"]["last_epoch"] == EPOCHS * BATCHES


def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    write, calls = torch.save, []

    def save(state, file, **options):
        if "optimizer" in state:
            calls.append(1)
            if len(calls) == 2:
                file.write(b"the first bytes of it")
                raise Kill
        write(state, file, **options)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(Kill):
        stage(tmp_path).run()
    monkeypatch.undo()
    again = stage(tmp_path)
    again.run()
    assert len(again.losses) == (EPOCHS - 1) * BATCHES


def test_truncated_temporary_files_do_not_matter(tmp_path):
    folder = killed(tmp_path, after=BATCHES + 2).folder
    for name in (".finished.pt.part", "tmp_x1y2z3"):
        (folder / name).write_bytes(b"PK\x03\x04 cut off")
    again = stage(tmp_path)
    again.run()
    assert len(again.losses) == (EPOCHS - 1) * BATCHES
    assert same(saved(folder / "finished.pt"), again.model.state_dict())
    assert not (folder / ".finished.pt.part").exists()


def test_a_finished_stage_is_loaded(tmp_path):
    stage(tmp_path).run()
    written = (tmp_path / "disentanglement" / "finished.pt").stat().st_mtime_ns
    again = stage(tmp_path, seed=9)
    again.run()
    assert again.losses == []
    assert same(again.model.state_dict(), saved(tmp_path / "disentanglement" / "finished.pt"))
    assert (tmp_path / "disentanglement" / "finished.pt").stat().st_mtime_ns == written


def test_a_kill_between_the_last_epoch_and_the_result(tmp_path):
    stage(tmp_path).run()
    result = saved(tmp_path / "disentanglement" / "finished.pt")
    (tmp_path / "disentanglement" / "finished.pt").unlink()
    again = stage(tmp_path)
    again.run()
    assert again.losses == [] and same(saved(tmp_path / "disentanglement" / "finished.pt"), result)


def test_what_is_done_at_the_end_is_saved(tmp_path):
    made = stage(tmp_path, "autoencoder", max_epochs=1)
    made.on_finish = LatentScale(made.train_loader, AutoencoderBatch(size=16, windows=4), torch.device("cpu"))
    made.run()
    assert saved(tmp_path / "autoencoder" / "finished.pt")["latent_scale"] == made.model.latent_scale != 1
    with torch.no_grad():
        latents = made.model.eval().encode(torch.cat([s["image"] for s in subjects(2 * BATCHES)]).unsqueeze(1))
    assert 0.7 < latents.std() < 1.4


def test_logs(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    made = stage(tmp_path, errors=(0.2, 0.05), max_epochs=2)
    made.run()
    events = accumulator.EventAccumulator(str(made.folder))
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    steps = list(range(1, 2 * BATCHES + 1))
    (losses,) = (values for values in scalars.values() if [step for step, _ in values] == steps)
    assert [value for _, value in losses] == pytest.approx(made.losses, rel=1e-5)
    # off by 0.2 in the hidden contrasts, less what is clipped at 1
    assert [step for step, _ in scalars["psnr"]] == [1, 2]
    assert 13.9 < scalars["psnr"][0][1] < 15.5 and 25.9 < scalars["psnr"][1][1] < 27
    assert {"psnr_t1ce", "ssim_flair"} < set(scalars) and "psnr_t1" not in scalars
    assert events.Tags()["images"]


def test_export_is_a_plain_state_dict(tmp_path):
    model = tiny()
    export(model, str(tmp_path / "new" / "model.pt"))
    assert same(saved(tmp_path / "new" / "model.pt"), model.state_dict())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.pt"]
