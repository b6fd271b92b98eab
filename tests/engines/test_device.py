"""Which device, and which type of 16 bits, as GPUs of several kinds say of themselves."""

import logging

import pytest
import torch

from bundle.engines.device import bfloat16_is_fast, half_is_fast, half_type, pick_device


@pytest.mark.parametrize(
    ("capability", "half"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_half_precision_of_gpus(monkeypatch, capability, half):
    """V100, T4, A100, H100."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert half_type("cuda:1") == half and half_is_fast("cuda:1")
    assert bfloat16_is_fast("cuda:1") == (half == torch.bfloat16)


@pytest.mark.parametrize("there", [True, False])
def test_half_precision_of_cpus(monkeypatch, there):
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: there)
    assert half_type("cpu") == torch.bfloat16
    assert bfloat16_is_fast("cpu") == half_is_fast("cpu") == there


@pytest.mark.parametrize(("rank", "index"), [(None, 0), ("0", 0), ("1", 1), ("2", 0)])
def test_processes_take_a_gpu_each_and_share_where_they_are_more(monkeypatch, rank, index):
    chosen = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert pick_device() == torch.device("cuda", index)
    assert chosen == [torch.device("cuda", index)]


def test_without_a_gpu_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with caplog.at_level(logging.INFO, "bundle"):
        assert pick_device() == torch.device("cpu")
    assert caplog.messages == [f"no CUDA device: computing on the CPU with {torch.get_num_threads()} threads"]
