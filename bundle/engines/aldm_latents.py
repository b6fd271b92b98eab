"""The latents of all training subjects, encoded once: the later stages of ALDM never touch a volume."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from bundle.engines.stage import save_atomically
from bundle.networks.aldm import ALDM
from bundle.networks.codebook import Codebook, perplexity
from bundle.networks.weights import sha256

logger = logging.getLogger(__name__)


class LatentStore:
    """Files of latents, several of each subject, each of another augmentation; the first is of the scans as they are.

    A file holds `seen` and `image` (M, c, h, w, d), half precision, the latents of what the network is shown and of
    what it is to make (0 where a contrast does not exist), and `exists` (M,).

    Args:
        model: its autoencoder encodes.
        subjects: items, one per subject.
        dataset: their prepared volumes, in the same order: image (M, H, W, D), exists (M,) and brain.
        augment: random transform that adds `seen`.
        copies: files per subject.
        folder: of the files.
        made_with: file of the autoencoder's weights; latents of other weights, subjects or copies are made again.
        device: where to compute.
        amp: encode under autocast to bfloat16.
        seed: of the augmentation.
    """

    def __init__(
        self,
        model: ALDM,
        subjects: Sequence[Mapping[str, Any]],
        dataset: Dataset[Any],
        augment: Compose,
        copies: int,
        folder: str,
        made_with: str,
        device: torch.device,
        amp: bool = False,
        seed: int = 0,
    ) -> None:
        self.model, self.subjects, self.dataset, self.augment = model, subjects, dataset, augment
        self.copies, self.folder, self.made_with = copies, Path(folder), Path(made_with)
        self.device, self.amp, self.seed = device, amp, seed

    @property
    def files(self) -> list[str]:
        """All files, whether they are there or not."""
        return [str(self.file(item, copy)) for item in self.subjects for copy in range(self.copies)]

    def file(self, item: Mapping[str, Any], copy: int) -> Path:
        """Where a copy of a subject is kept."""
        return self.folder / f"{item['subject']}_{copy}.pt"

    def key(self) -> str:
        """What the latents follow from."""
        what = json.dumps([self.subjects, self.copies, self.seed], default=str)
        return hashlib.sha256((sha256(self.made_with) + what).encode()).hexdigest()

    def run(self) -> None:
        """Encode what is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note, key = self.folder / "made_with.txt", self.key()
        if not note.is_file() or note.read_text() != key:
            for old in self.folder.glob("*.pt"):
                old.unlink()
            note.write_text(key)
        self.model.to(self.device).eval()
        for number, item in enumerate(tqdm(self.subjects, desc="latents", unit="subject", disable=None)):
            missing = [copy for copy in range(self.copies) if not self.file(item, copy).is_file()]
            prepared = self.dataset[number] if missing else {}
            for copy in missing:
                save_atomically(self.encode(prepared, number, copy), self.file(item, copy))
        self.report()

    @torch.no_grad()
    def encode(self, prepared: Mapping[str, Any], number: int, copy: int) -> dict[str, Tensor]:
        """One copy of a subject."""
        plain = {key: convert_to_tensor(prepared[key], track_meta=False).float() for key in ("image", "brain")}
        if copy:
            self.augment.set_random_state(self.seed + 1000 * number + copy)
            shown: Mapping[str, Tensor] = self.augment(plain)
        else:
            shown = {**plain, "seen": plain["image"]}
        exists = convert_to_tensor(prepared["exists"], track_meta=False)
        return {"exists": exists, **{key: self.latents(shown[key], exists) for key in ("seen", "image")}}

    def latents(self, image: Tensor, exists: Tensor) -> Tensor:
        """Latents (M, c, h, w, d), half precision, of the contrasts (M, H, W, D) that exist, one after the other."""
        result = []
        for volume, there in zip(convert_to_tensor(image, track_meta=False), exists.tolist()):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                latent = self.model.encode(volume[None, None].to(self.device)) if there else None
            result.append(None if latent is None else latent[0].half().cpu())
        like = next(latent for latent in result if latent is not None)
        return torch.stack([torch.zeros_like(like) if latent is None else latent for latent in result])

    @torch.no_grad()
    def report(self) -> None:
        """Tell how much of the codebook the scans use."""
        codebook = self.model.autoencoder.regulariser
        if not isinstance(codebook, Codebook):
            return
        found = []
        for item in self.subjects:
            saved = load_latents(str(self.file(item, 0)))
            latent = saved["image"][saved["exists"] > 0].to(self.device) / self.model.latent_scale
            found.append(codebook.nearest(latent.movedim(1, -1).flatten(0, -2)))
        indices, size = torch.cat(found), codebook.num_embeddings
        used = len(indices.unique())
        even = perplexity(indices, size)
        logger.info(
            f"codebook: the training scans use {used} of {size} codes ({used / size:.0%}), perplexity {even:.0f}"
        )


def load_latents(path: str) -> dict[str, Tensor]:
    """A file of a `LatentStore`, as float32."""
    return {key: tensor.float() for key, tensor in torch.load(path, weights_only=True).items()}
