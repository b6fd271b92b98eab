"""Choose what to compute on."""

from __future__ import annotations

import logging
import os

import torch

logger = logging.getLogger(__name__)


def pick_device() -> torch.device:
    """The first CUDA device, or the CPU, which is said in one line of the log.

    Of the processes that torchrun started on a machine each takes the next one. Where they are more than the GPUs, some
    share one: of two that do inference one can then read and write while the other computes.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.cuda.set_device(device)  # for what names none
        return device
    logger.info(f"no CUDA device: computing on the CPU with {torch.get_num_threads()} threads")
    return torch.device("cpu")


def bfloat16_is_fast(device: torch.device | str) -> bool:
    """Whether autocast to bfloat16 pays: on CUDA GPUs and on CPUs with instructions for it."""
    if torch.device(device).type == "cuda":
        return half_type(device) == torch.bfloat16
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def half_is_fast(device: torch.device | str) -> bool:
    """Whether autocast to `half_type` pays: on all CUDA GPUs, and where bfloat16 does."""
    return torch.device(device).type == "cuda" or bfloat16_is_fast(device)


def half_type(device: torch.device | str) -> torch.dtype:
    """The type of 16 bits to compute in: bfloat16, and float16 on CUDA GPUs before Ampere, which only emulate that.

    float16 ends at 65504 and is for inference: gradients in it would need a loss that is scaled.
    """
    before_ampere = torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float16 if before_ampere else torch.bfloat16
