"""Apply a network of axial slices to a whole volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor
from tqdm import tqdm

from bundle.engines.device import half_type
from bundle.engines.options import check_whole

MULTIPLE = 16  # voxels: what the sides of a window are multiples of, where the volume allows it


class VolumeInferer(Inferer):
    """Run a slice network over the axial slices of one volume, only where there is brain.

    MONAI's ``SliceInferer`` would run every slice, of which a quarter to a half are empty, and only at one fixed size.
    All slices are cut to one window around the brain. That takes less time, and the statistics of instance
    normalisation are then those of a window that is mostly brain, as in training, not of the air around it.

    Args:
        batch_size: slices per call of the network. On a CPU few: activations beyond 32 MB are mapped anew by every
            operation, which takes longer than the operation.
        amp: compute in 16 bits (`half_type`) where torch's autocast finds it safe.
        num_contrasts: C; without it, half of the input's channels.
        progress: show the slices of the volume as a bar on a terminal.
        out_channels: K, the channels that the network makes; without it, C.
        neighbours: slices on either side, of which the network gets the C images as further channels: the nearest
            first, of two equally near the one below. Beyond the brain's ends its outermost slice is repeated.
        smallest_side: of the window, in voxels; it grows to hold the brain.
        workers: batches computed side by side, the processor's threads shared among them. On a CPU the layers of so
            small batches leave most threads waiting for each other. The network must not keep what one call has seen.

    Raises:
        InputError: batch_size or workers is below 1.
    """

    def __init__(
        self,
        batch_size: int = 16,
        amp: bool = False,
        num_contrasts: int | None = None,
        progress: bool = False,
        out_channels: int | None = None,
        neighbours: int = 0,
        smallest_side: int = MULTIPLE,
        workers: int = 1,
    ) -> None:
        super().__init__()
        check_whole("batch_size", batch_size, 1)
        check_whole("workers", workers, 1)
        self.batch_size = batch_size
        self.amp = amp
        self.num_contrasts = num_contrasts
        self.progress = progress
        self.out_channels = out_channels
        self.smallest_side = smallest_side
        self.workers = workers
        self.offsets = [side * step for step in range(1, neighbours + 1) for side in (-1, 1)]

    def __call__(
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, made: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Map a volume.

        Args:
            inputs: ``(1, 2C, H, W, D)``: C images, 0 outside the brain, then C presence maps.
            network: maps slices ``(B, 2C [+ more], H, W)`` to ``(B, K, H, W)``. One with an argument `positions` gets
                the numbers of the slices there, ``(B,)``, from 0 at the bottom of the volume.
            args, kwargs: passed on to the network.
            made: a volume ``(1, K, H, W, D)`` whose slices the network gets as the argument of that name.

        Returns:
            ``(1, K, H, W, D)``, float32, on the device of ``inputs``; 0 outside the window and in slices without brain.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"inputs: a batch of {inputs.shape[0]} volumes, but only 1 is taken at a time.")
        # plain: a MetaTensor drags its metadata through every operation of the network
        volume = convert_to_tensor(inputs, track_meta=False)[0]
        channels = self.num_contrasts or volume.shape[0] // 2
        brain = volume[:channels].ne(0).any(0)
        filled = brain.flatten(0, 1).any(0).nonzero().flatten()
        result = volume.new_zeros(self.out_channels or channels, *volume.shape[1:], dtype=torch.float32)
        rows, columns = self.window(brain)
        # views, (D, 2C, H, W) and (D, K, H, W)
        stack, slices = (each[:, rows, columns].movedim(-1, 0) for each in (volume, result))
        told = "positions" in signature(getattr(network, "forward", network)).parameters

        def call(where: Tensor) -> int:
            further = dict(kwargs)
            if told:
                further["positions"] = where
            if made is not None:
                further["made"] = made[0, :, rows, columns].movedim(-1, 0)[where]
            # both hold for one thread
            with torch.inference_mode(), torch.autocast(volume.device.type, half_type(volume.device), enabled=self.amp):
                slices[where] = network(self.batch(stack, where, filled, channels), *args, **further).float()
            return len(where)

        hidden = None if self.progress else True  # None: hidden where there is no terminal
        with tqdm(total=len(filled), desc="slices", unit="slice", leave=False, disable=hidden) as bar:
            for count in self.each(call, filled.split(self.batch_size) if len(filled) else ()):
                bar.update(count)
        return result[None]

    def each(self, call: Callable[[Tensor], int], batches: Sequence[Tensor]) -> Iterator[int]:
        """Call with every batch, `workers` at a time; the results in the order of the batches."""
        if self.workers == 1:
            yield from map(call, batches)
            return
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.workers, "slices", torch.set_num_threads, (max(threads // self.workers, 1),))
        try:
            yield from pool.map(call, batches)
        finally:
            pool.shutdown(cancel_futures=True)  # those that wait, where one failed or the run is interrupted
            torch.set_num_threads(threads)

    def batch(self, stack: Tensor, where: Tensor, filled: Tensor, channels: int) -> Tensor:
        """What the network gets for some slices.

        Args:
            stack: all slices, ``(D, 2C [+ more], H, W)``.
            where: numbers of the slices, ``(B,)``.
            filled: numbers of the slices with brain, in order.
            channels: C.

        Returns:
            ``(B, 2C [+ more] + 2 neighbours C, H, W)``, channels last.
        """
        around = [stack[(where + k).clamp(filled[0], filled[-1]), :channels] for k in self.offsets]
        return torch.cat([stack[where], *around], dim=1).contiguous(memory_format=torch.channels_last)

    def window(self, brain: Tensor) -> tuple[slice, slice]:
        """Which rows and columns the network sees of a volume with this mask of the brain, ``(H, W, D)``."""
        outline = brain.any(2)
        rows, columns = (span(outline.any(1 - axis), self.smallest_side) for axis in (0, 1))
        return rows, columns


def span(filled: Tensor, smallest: int = MULTIPLE) -> slice:
    """The window along a line: all that is filled in its middle, a multiple of `MULTIPLE` long, inside the line.

    Args:
        filled: (N,), where there is something.
        smallest: length of the window, if that is more; N, if that is less than either.
    """
    places = filled.nonzero().flatten().tolist() or [0]
    first, last = places[0], places[-1] + 1
    length = min(-(-max(last - first, smallest) // MULTIPLE) * MULTIPLE, len(filled))
    start = min(max((first + last - length) // 2, 0), len(filled) - length)
    return slice(start, start + length)
