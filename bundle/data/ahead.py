"""Prepare the next subjects in other processes while the network is busy with this one."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import Dataset

from bundle.errors import InputError

logger = logging.getLogger(__name__)

_dataset: Dataset[Any]  # in a worker process: what it prepares


def _begin(dataset: Dataset[Any]) -> None:
    global _dataset
    _dataset = dataset
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the main process ends the others


def _prepare(index: int) -> Any:
    return _dataset[index]


class ReadAhead:
    """The items of a dataset, the next of which are prepared ahead, each in one of several processes.

    The processes are forks: MONAI undoes a transform only with the very object that was applied, and a fork's objects
    are those of its parent. Threads would share them, and MONAI switches an object's tracing off while it undoes it.

    An item whose preparation failed there is prepared again here, so that its error arrives as it is.

    Args:
        dataset: its items are prepared when they are asked for.
        processes: how many, each with a subject in memory; 0: every item when it is asked for.

    Raises:
        InputError: the system cannot fork.
    """

    def __init__(self, dataset: Dataset[Any], processes: int) -> None:
        self.dataset, self.processes = dataset, processes
        self.begun: dict[int, Future[Any]] = {}
        self.told = False  # that a process died
        if processes and "fork" not in multiprocessing.get_all_start_methods():
            raise InputError(f"read_ahead is {processes}, but this system cannot fork", "Use --read_ahead 0")

    def __getitem__(self, index: int) -> Any:
        ahead = self.begun.pop(index, None)
        if ahead is None:
            return self.dataset[index]
        if isinstance(ahead.exception(), BrokenExecutor) and not self.told:
            self.told = True
            logger.warning("a process that prepared subjects ahead has died: from here on each is prepared in its turn")
        return ahead.result() if ahead.exception() is None else self.dataset[index]

    def follow(self, numbers: Iterable[int], wanted: Callable[[int], bool]) -> Generator[int, None, None]:
        """The same numbers; while one is out, those behind it are prepared where they are `wanted`."""
        if not self.processes:
            yield from numbers
            return
        fork = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(self.processes, fork, _begin, (self.dataset,))
        out: deque[int] = deque()
        try:
            for number in numbers:
                out.append(number)
                if wanted(number):
                    self.begin(pool, number)
                if len(out) > self.processes:
                    yield out.popleft()
            yield from out
        finally:
            self.begun.clear()
            pool.shutdown(cancel_futures=True)

    def begin(self, pool: ProcessPoolExecutor, number: int) -> None:
        """Have an item prepared; where a process has died, as for want of memory, the pool takes no more of them."""
        with suppress(BrokenExecutor):
            self.begun[number] = pool.submit(_prepare, number)
