"""A training step without the host: on a GPU, forward, backward and update are recorded once and replayed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
WARM_UP = 3  # steps before the recording: libraries choose their algorithms then


class GraphedStep:
    """Adam on a loss whose shapes do not depend on the data, with a running average of the weights.

    On CUDA the whole step is a CUDA graph: windows are so small that the host would take longer to launch the kernels
    than the GPU takes to run them. On a CPU it is an ordinary step.

    Args:
        network: whose weights are averaged.
        loss: maps a batch to a scalar; no branch and no shape in it may depend on the data.
        first: a batch with the shapes of all others.
        parameters: what is trained; None: all of the network's.
        learning_rate: the highest one; see `run`.
        weight_decay: of AdamW.
        average: share of the new weights in the running average.
        clip: largest norm of the gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Batch], Tensor],
        first: Batch,
        parameters: Sequence[nn.Parameter] | None = None,
        learning_rate: float = 1.2e-3,
        weight_decay: float = 1e-4,
        average: float = 7e-4,
        clip: float = 1.0,
    ) -> None:
        self.network, self.loss, self.learning_rate, self.clip = network, loss, learning_rate, clip
        chosen = network.parameters() if parameters is None else parameters
        self.parameters = [p for p in chosen if p.requires_grad]
        device = self.parameters[0].device
        self.rate = torch.zeros((), device=device)  # a tensor, since a recorded number could not change
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.parameters, self.rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=on_gpu, capturable=on_gpu
        )
        state = network.state_dict()
        self.names = [name for name, value in state.items() if value.is_floating_point()]
        self.weights = [state[name] for name in self.names]
        self.average = [value.clone() for value in self.weights]
        self.share = torch.tensor(average, device=device)
        self.batch = {key: value.clone() for key, value in first.items()}
        self.graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            self.record()

    def record(self) -> None:
        """Record a step; the weights are afterwards what they were."""
        before = [value.clone() for value in self.weights]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # with a learning rate of 0
            for _ in range(WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self.value = self.step()
        with torch.no_grad():
            for values in (self.weights, self.average):
                torch._foreach_copy_(values, before)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def step(self) -> Tensor:
        """One update on `batch`; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        with torch.no_grad():
            change = torch._foreach_sub(self.weights, self.average)
            torch._foreach_mul_(change, self.share)
            torch._foreach_add_(self.average, change)
        return loss.detach()

    def run(
        self,
        batches: Iterable[Batch],
        seconds: float,
        every: int = 250,
        log: Callable[[dict[str, float]], None] = print,
    ) -> int:
        """Train for a time; the number of steps.

        The learning rate rises for a fiftieth of it, then falls to 0 as a cosine of the time that has passed.

        Args:
            batches: as many as there is time for.
            seconds: by the clock.
            every: steps between two lines of the log.
            log: gets the mean loss, the steps and the seconds.

        Raises:
            ValueError: no time at all.
            FloatingPointError: the loss is not finite.
        """
        if seconds <= 0:
            raise ValueError(f"seconds: {seconds:.1f} must be above 0.")
        start, steps, total = time.monotonic(), 0, torch.zeros((), device=self.rate.device)
        for batch in batches:
            passed = (time.monotonic() - start) / seconds
            if passed >= 1:
                break
            self.rate.fill_(self.learning_rate * min(50 * passed, 1) * max((1 + math.cos(math.pi * passed)) / 2, 0.003))
            for key, value in self.batch.items():
                value.copy_(batch[key])
            if self.graph is None:
                total += self.step()
            else:
                self.graph.replay()
                total += self.value
            steps += 1
            if steps % every == 0:
                mean = float(total) / every
                if not math.isfinite(mean):
                    raise FloatingPointError(f"the loss is {mean} after {steps} steps: use a lower learning rate")
                log({"steps": steps, "seconds": round(time.monotonic() - start, 1), "loss": mean})
                total.zero_()
        return steps

    def averaged(self) -> dict[str, Tensor]:
        """The state dict of the network with the running average of its weights."""
        return {**self.network.state_dict(), **dict(zip(self.names, self.average))}


def in_parts(batches: Iterable[Batch], size: int) -> Iterator[dict[str, Tensor]]:
    """Batches cut into smaller ones: a large one is drawn with as few kernels as a small one."""
    for batch in batches:
        parts = {key: value.split(size) for key, value in batch.items()}
        for number in range(len(next(iter(parts.values())))):
            yield {key: value[number] for key, value in parts.items()}
