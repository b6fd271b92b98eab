"""Several processes, started by torchrun: they share the work and agree on what they learn.

A process has a rank, 0 to world size - 1; ``ignite.distributed`` tells both, also where there is only one process.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bundle.errors import InputError

PATIENCE = timedelta(days=7)  # how long a process waits: rank 0 validates alone, and subjects differ in size
T = TypeVar("T")

_queues = count()  # every process makes its queues in the same order


def join(own_gpu: bool = False) -> None:
    """Meet the other processes that torchrun started; nothing to do without torchrun, or a second time.

    Args:
        own_gpu: each needs a GPU of its own, where there are any: NCCL averages no gradients between two on one GPU.

    Raises:
        InputError: the machine has fewer GPUs than processes.
    """
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if own_gpu and 0 < gpus < processes:
            remedy = f"Use --nproc_per_node {gpus}"
            raise InputError(f"{processes} processes on this machine are to train, but it has {gpus} GPUs", remedy)
        if "SLURM_JOB_ID" in os.environ:  # ignite believes SLURM, which knows of torchrun, not of what torchrun started
            os.environ["SLURM_LOCALID"] = os.environ["LOCAL_RANK"]
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        atexit.register(leave)


def leave() -> None:
    """End the threads that talk to the other processes: left to the end of Python, they may abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is rank 0, which alone tells and saves what is common to all."""
    return bool(idist.get_rank() == 0)


def share_of_batch(batch_size: int) -> int:
    """How many items of a batch each process takes.

    Raises:
        InputError: the batch cannot be divided among the processes.
    """
    share, rest = divmod(batch_size, idist.get_world_size())
    if rest or not share:
        fault = f"a batch of {batch_size} cannot be divided among {idist.get_world_size()} processes"
        raise InputError(fault, "Use --subjects_per_batch with a multiple of the number of processes")
    return share


class WorkQueue:
    """The numbers 0..`length` - 1, each for one process only: whoever is free takes the next.

    The count is kept by torchrun's store, so a process that dies takes no more than the number it was busy with.
    """

    def __init__(self, length: int) -> None:
        self.length, self.name = length, f"work queue {next(_queues)}"

    def __iter__(self) -> Iterator[int]:
        store, _, _ = next(dist.rendezvous("env://"))
        while (number := store.add(self.name, 1) - 1) < self.length:
            yield number


def share_numbers(length: int) -> Iterable[int]:
    """The numbers 0..`length` - 1, or this process's share of them."""
    return range(length) if idist.get_world_size() == 1 else WorkQueue(length)


def gather(mine: list[T]) -> list[T]:
    """The lists of all processes, joined in the order of the ranks, for each of them."""
    if idist.get_world_size() == 1:
        return mine
    lists: list[Any] = [None] * idist.get_world_size()
    dist.all_gather_object(lists, mine)
    return [item for part in lists for item in part]


def copy_from_first(*modules: nn.Module) -> None:
    """Give the modules of every process the parameters and buffers that rank 0 has."""
    if idist.get_world_size() > 1:
        for module in modules:
            for tensor in [*module.parameters(), *module.buffers()]:
                dist.broadcast(tensor.data, 0)


def average(modules: Iterable[nn.Module]) -> None:
    """Average gradients and buffers over the processes, as `DistributedDataParallel` averages gradients.

    It would wrap one module and see only what its `forward` uses. Here the loss learns too, some networks are called in
    parts, and what a batch does not use must stay without a gradient (see `Stage`), unless another process used it.
    """
    if idist.get_world_size() == 1:
        return
    modules = list(modules)
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
    if not parameters:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(used)
    learning = [p for p, users in zip(parameters, used.tolist()) if users]
    for p in learning:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    tensors: list[Tensor] = [*(p.grad for p in learning if p.grad is not None), *buffers]
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= idist.get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(mean.reshape(tensor.shape))
