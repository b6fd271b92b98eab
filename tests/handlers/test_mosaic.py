import io

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.image import imread

from bundle.handlers.mosaic import Mosaic

SHOWN, MADE, TRUE = 0.2, 0.5, 0.8
LEVELS = pytest.approx


def output(size):
    """A batch of M = 2 contrasts whose slices are 6 wide (to the right) and 4 high (to the front)."""
    shown = torch.full((size, 4, 6, 4), SHOWN)
    shown[:, 1] = 0  # the second contrast is hidden
    made, true = torch.full((size, 2, 6, 4), MADE), torch.full((size, 2, 6, 4), TRUE)
    true[:, 0, 5, 3] = 1.0  # right and front
    return {"image": shown, "pred": made, "label": {"image": true}}


def pictures(folder, sizes, epochs=(3,)):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    engine = Engine(lambda _, batch: batch)
    epoch = iter(epochs)
    Mosaic(str(folder), lambda _: next(epoch), num_slices=4).attach(engine)
    for _ in epochs:
        engine.run([output(size) for size in sizes], max_epochs=1)
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    (tag,) = events.Tags()["images"]
    return [(event.step, imread(io.BytesIO(event.encoded_image_string))) for event in events.Images(tag)]


def test_rows_columns_and_orientation(tmp_path):
    ((step, picture),) = pictures(tmp_path, [2, 5])  # only the first batch is shown
    assert step == 3
    picture = picture if picture.ndim == 2 else picture[..., 0]
    assert picture.shape == (2 * 3 * 4, 2 * 6)
    for row, (left, right) in enumerate([(SHOWN, 0), (MADE, MADE), (TRUE, TRUE)] * 2):
        band = picture[4 * row + 1 : 4 * row + 4]
        assert np.allclose(band[:, :6], left, atol=0.005) and np.allclose(band[:, 6:], right, atol=0.005)
    corner = picture[8:12, :6]  # the first slice's truth: the front is up, the patient's right is to the right
    assert corner[0, 5] == LEVELS(1.0, abs=0.005) and corner[0, 0] == LEVELS(TRUE, abs=0.005)


def test_at_most_so_many_slices_and_one_picture_per_validation(tmp_path):
    found = pictures(tmp_path, [7], epochs=(2, 4))
    assert [step for step, _ in found] == [2, 4]
    assert all(picture.shape[0] == 4 * 3 * 4 for _, picture in found)
