import math

import pytest
import torch
from ignite.engine import Engine

from bundle.handlers.target_quality import TargetQuality


def output(errors, counted, side=32):
    """One batch: contrast j of sample b is off by errors[b][j] inside the brain, and by a lot outside."""
    errors, counted = torch.tensor(errors), torch.tensor(counted, dtype=torch.float32)
    truth = 0.3 + 0.4 * torch.rand(*errors.shape, side, side)
    brain = torch.zeros(len(errors), 1, side, side)
    brain[..., 8:24, 8:24] = 1
    pred = truth + torch.where(brain > 0, errors[:, :, None, None], torch.full((), 3.0))
    return {"pred": pred, "label": {"image": truth, "counted": counted, "brain": brain}}


def metrics(*batches, engine=None):
    if engine is None:
        engine = Engine(lambda _, batch: batch)
        TargetQuality(["t1", "flair"]).attach(engine)
    return engine.run(list(batches), max_epochs=1).metrics


def test_mean_over_the_counted_ones():
    found = metrics(
        output([[0.1, 0.25], [0.01, 0.1]], [[1, 0], [1, 1]]),  # 20 dB; 40 dB, 20 dB
        output([[0.1, 0.1]], [[0, 1]]),  # 20 dB
    )
    assert found["psnr_t1"] == pytest.approx(30, abs=1e-3) and found["psnr_flair"] == pytest.approx(20, abs=1e-3)
    assert found["psnr"] == pytest.approx(25, abs=1e-3)  # of the four images, not of the two contrasts
    assert set(found) == {f"{m}{c}" for m in ("psnr", "ssim") for c in ("", "_t1", "_flair")}
    assert 0 < found["ssim_flair"] < 1 and found["ssim"] == pytest.approx((found["ssim_t1"] + found["ssim_flair"]) / 2)


def test_predictions_are_clipped_and_the_brain_decides():
    made = output([[0.0, 0.0]], [[1, 1]])
    made["label"]["image"][:] = 1.0
    made["pred"][:] = 1.5
    found = metrics(made)
    assert math.isinf(found["psnr"]) and found["ssim"] == pytest.approx(1)


def test_slices_without_brain_do_not_count():
    empty = output([[0.3, 0.3]], [[1, 1]])
    empty["label"]["brain"][:] = 0
    found = metrics(empty, output([[0.1, 0.1]], [[1, 0]]))
    assert found["psnr"] == pytest.approx(20, abs=1e-3) and "psnr_flair" not in found


def test_every_validation_starts_anew():
    engine = Engine(lambda _, batch: batch)
    TargetQuality(["t1", "flair"]).attach(engine)
    metrics(output([[0.1, 0.1]], [[1, 1]]), engine=engine)
    assert metrics(output([[0.01, 0.01]], [[1, 1]]), engine=engine)["psnr"] == pytest.approx(40, abs=1e-2)
