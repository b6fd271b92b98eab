"""The table of ALDM's sizes: arithmetic and memory of a layer whose figures are known, and the field of view in mm."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scripts.aldm_sizes import main, measure, model_of

IN, OUT, BATCH = 300, 500, 1000


def test_a_linear_layer() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = torch.nn.Linear(IN, OUT, bias=False)
        x = torch.zeros(BATCH, IN)
        memory, tera = measure(layer, lambda: layer(x), training=False, amp=False)
        memory_trained, tera_trained = measure(layer, lambda: layer(x), training=True, amp=False)
    product = 2 * BATCH * IN * OUT / 1e12
    assert tera == pytest.approx(product)
    assert tera_trained == pytest.approx(2 * product)  # and the gradient of the weights; nothing asks for that of x
    weights, output = 4 * IN * OUT / 2**30, 4 * BATCH * OUT / 2**30
    assert memory >= weights + output
    assert memory_trained >= 4 * weights + output  # with their gradient and Adam's two moments


def test_sizes_share_a_field_of_view(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert [model_of(size)[1] for size in ("tiny", "cpu", "default")] == [4, 3, 1]
    main(["--sizes", "tiny", "--shape", "192", "192", "144"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert [row[1] for row in rows] == ["autoencoder", "MS-SPADE, one way", "diffusion UNet, one step"]
    assert 0 < float(rows[0][4]) < 0.01  # 1/64 of the 0.13 TFLOP of voxels of 1 mm
