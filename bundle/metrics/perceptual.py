"""LPIPS and FID with networks that the user has on disk: nothing is downloaded, no weights are shipped.

Both look at a volume (X, Y, Z) as its axial slices (last axis) that hold brain: zero outside the brain, from [0, 1] to
[-1, 1] (clipped), three equal channels, (B, 3, X, Y). What else the network needs, such as another size, it must do
itself. It is given as a TorchScript file, as `torch.jit.script` or `torch.jit.trace` and `save` write it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from monai.metrics.fid import compute_frechet_distance
from torch import Tensor

from bundle.errors import InputError

BATCH = 16  # slices


class LPIPS:
    """Learned perceptual distance, averaged over the axial slices with brain; 0 for equal images, lower is better.

    Zhang et al., CVPR 2018: a distance of deep features. Its scale is that of the network that is given.

    Args:
        path: TorchScript file of f(a, b) -> distance, a and b (B, 3, H, W) in [-1, 1], distance (B,) or (B, 1, 1, 1).
        device: where it runs.

    Raises:
        InputError: the file is missing, no TorchScript, or not such a network.

    Example::

        network = lpips.LPIPS(net="alex").eval()  # where there is a network: pip install lpips
        slices = torch.zeros(2, 3, 192, 192)
        torch.jit.trace(network, (slices, slices)).save("alex.pt")
        ...
        LPIPS("alex.pt")(pred, truth, brain)
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        self.network = _SliceNetwork(path, device)

    def __call__(self, pred: Tensor, truth: Tensor, brain: Tensor) -> float:
        a, b = axial_slices(pred, brain), axial_slices(truth, brain)
        distances = self.network(a, b)
        if distances.numel() != len(a):
            raise self.network.fault(
                f"gives {tuple(distances.shape)} for {len(a)} pairs of slices",
                "It must give a distance per pair, (B,)",
            )
        return distances.double().mean().item()


class FeatureNetwork:
    """What FID compares: features of axial slices.

    Args:
        path: TorchScript file of f(slices) -> features, slices (B, 3, H, W) in [-1, 1], features (B, F), F at least 2.
        device: where it runs.

    Raises:
        InputError: the file is missing, no TorchScript, or not such a network.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        self.network = _SliceNetwork(path, device)

    def __call__(self, image: Tensor, brain: Tensor) -> Tensor:
        """Features (B, F) of a volume's B slices with brain, float64."""
        slices = axial_slices(image, brain)
        features = self.network(slices)
        if features.ndim != 2 or len(features) != len(slices) or features.shape[1] < 2:
            raise self.network.fault(
                f"gives {tuple(features.shape)} for {len(slices)} slices",
                "It must give a vector per slice, (B, F), F >= 2",
            )
        return features.double()


class FID:
    """Frechet distance of the features of all synthesised slices from those of all real ones; 0 is best.

    Heusel et al., NeurIPS 2017, eq. 6, computed by MONAI from means and covariances, which are summed up here so that
    no features are kept. It is that of one data set: its value falls with the number of slices, and with fewer slices
    than features it only ranks methods that were given the same slices.

    Args:
        features: the network, which several FIDs may share.
    """

    def __init__(self, features: FeatureNetwork) -> None:
        self.features = features
        self.made, self.real = _Moments(), _Moments()

    def add(self, pred: Tensor, truth: Tensor, brain: Tensor) -> None:
        """Take in a volume (X, Y, Z) and its truth."""
        self.made.add(self.features(pred, brain))
        self.real.add(self.features(truth, brain))

    def compute(self) -> float | None:
        """The distance; None of fewer than two slices."""
        if self.real.count < 2:
            return None
        return compute_frechet_distance(*self.made.statistics(), *self.real.statistics()).item()


def axial_slices(image: Tensor, brain: Tensor) -> Tensor:
    """The slices of a volume (X, Y, Z) that hold brain as (B, 3, X, Y), see above.

    Raises:
        ValueError: shapes that differ or are not 3-D, or no brain.
    """
    inside = brain != 0
    if image.shape != brain.shape or image.ndim != 3:
        raise ValueError(f"volume and brain must have one 3-D shape, got {tuple(image.shape)}, {tuple(brain.shape)}")
    if not inside.any():
        raise ValueError("the mask is empty")
    chosen = inside.flatten(0, 1).any(0)
    shown = torch.where(inside, image.float(), 0).clamp(0, 1)[..., chosen].movedim(-1, 0)
    return (2 * shown - 1)[:, None].expand(-1, 3, -1, -1)


class _SliceNetwork:
    """A TorchScript file, run on batches of slices."""

    def __init__(self, path: str | Path, device: torch.device | str) -> None:
        self.path, self.device = Path(path), torch.device(device)
        if not self.path.is_file():
            raise self.fault("does not exist", "Give the path of a TorchScript file")
        try:
            self.network = torch.jit.load(str(self.path), map_location=self.device).eval()
        except RuntimeError as error:
            raise self.fault("is no TorchScript file", "Write it by torch.jit.script(network).save(path)") from error

    @torch.inference_mode()
    def __call__(self, *slices: Tensor) -> Tensor:
        """The outputs (B, ...) on the CPU."""
        outputs = [
            self._run(*(part.to(self.device) for part in parts)) for parts in zip(*(s.split(BATCH) for s in slices))
        ]
        return torch.cat(outputs)

    def _run(self, *slices: Tensor) -> Tensor:
        shape = tuple(slices[0].shape)
        try:
            output = self.network(*slices)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            said = f"fails on {len(slices)} tensor{'s' * (len(slices) > 1)} of shape {shape}: {reason}"
            raise self.fault(said, "Trace or script it for slices of any number and size") from error
        if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(slices[0]):
            gives = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise self.fault(f"gives {gives} for slices of shape {shape}", "It must give one tensor, a row per slice")
        return output.cpu()

    def fault(self, fault: str, remedy: str) -> InputError:
        return InputError(fault, remedy, self.path)


class _Moments:
    """Mean and covariance of vectors that come in batches."""

    def __init__(self) -> None:
        self.count = 0
        self.total = self.products = torch.zeros(())

    def add(self, vectors: Tensor) -> None:
        self.count += len(vectors)
        self.total = self.total + vectors.sum(0)
        self.products = self.products + vectors.T @ vectors

    def statistics(self) -> tuple[Tensor, Tensor]:
        mean = self.total / self.count
        return mean, (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)
