"""Load the network's weights, or say what is wrong with the file."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from torch import nn

from bundle.errors import InputError

REMEDY = "Give the file of this bundle (models/model.pt), or the network settings that the file was trained with"


def load_weights(network: nn.Module, path: str | Path) -> str:
    """Load a state dict into a network and return the SHA-256 of the file.

    Where a file ``<path>.sha256`` is beside it, as ``sha256sum`` writes it, the checksum must be the one in there.

    Args:
        network: the network; left as it was where the file does not fit.
        path: a state dict saved by ``torch.save``.

    Raises:
        InputError: the file is missing, damaged, not the one of its checksum, no state dict, or of another
            architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("the file with the network's weights is missing", REMEDY, path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        fault = "the weights cannot be read: the file is damaged or truncated"
        raise InputError(fault, "Download it again", path) from error
    checksum, listed = sha256(path), path.with_name(f"{path.name}.sha256")
    if listed.is_file() and checksum not in listed.read_text(encoding="utf-8").split():
        remedy = "Download both again, or remove the checksum if you put other weights here"
        raise InputError(f"does not have the checksum of {listed.name}", remedy, path)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError("not a state dict of tensors", REMEDY, path)
    misfit = difference(network.state_dict(), state)
    if misfit:
        raise InputError(f"the weights are of another architecture ({misfit})", REMEDY, path)
    network.load_state_dict(state)
    return checksum


def difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> str:
    """How two state dicts differ in names and shapes, in a few words; empty where they do not."""
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    shapes = sorted(name for name in expected.keys() & found.keys() if expected[name].shape != found[name].shape)
    parts = [
        f"{len(names)} tensors {what}, first {names[0]}"
        for names, what in ((missing, "missing"), (surplus, "too many"), (shapes, "of another shape"))
        if names
    ]
    return "; ".join(parts)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
