"""Choose what to compute on."""

from __future__ import annotations

import logging
import os

import torch

logger = logging.getLogger(__name__)


def pick_device() -> torch.device:
    """The first CUDA device (torchrun: this process's own), or the CPU, which is said in one line of the log."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    logger.info(f"no CUDA device: computing on the CPU with {torch.get_num_threads()} threads")
    return torch.device("cpu")


def bfloat16_is_fast(device: torch.device | str) -> bool:
    """Whether autocast to bfloat16 pays: on CUDA GPUs that have it and on CPUs with instructions for it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
