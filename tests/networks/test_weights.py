"""Weights fit or it is said why not."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.errors import InputError
from bundle.networks.weights import load_weights


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Linear(5, 6))


def test_load(tmp_path):
    trained, fresh = network(), network()
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    checksum = load_weights(fresh, tmp_path / "model.pt")
    assert checksum == hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


def test_the_checksum_beside_the_file(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    listed = tmp_path / "model.pt.sha256"
    listed.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  model.pt\n")
    load_weights(network(), path)
    torch.save({name: value + 1 for name, value in network().state_dict().items()}, path)
    with pytest.raises(InputError, match=r"does not have the checksum of model.pt.sha256"):
        load_weights(network(), path)


def test_the_shipped_checksum():
    """The file as it is, its checksum beside it and the one on the model card are of one set of weights."""
    models = Path(__file__).parents[2] / "models"
    checksum = hashlib.sha256((models / "model.pt").read_bytes()).hexdigest()
    assert (models / "model.pt.sha256").read_text() == f"{checksum}  model.pt\n"
    assert f"`{checksum}`" in (models / "README.md").read_text()


def broken(tmp_path, what):
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif what == "module":
        torch.save(network(), path)
    elif what == "checkpoint":
        torch.save({"model": network().state_dict(), "epoch": 3}, path)
    elif what == "wider":
        torch.save(network(8).state_dict(), path)
    elif what == "other":
        torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), path)
    elif what == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("missing", "file with the network's weights is missing"),
        ("truncated", "damaged or truncated"),
        ("empty", "damaged or truncated"),
        ("text", "damaged or truncated"),
        ("module", "damaged or truncated|not a state dict"),
        ("checkpoint", "not a state dict of tensors"),
        ("wider", r"another architecture \(2 tensors of another shape, first 0.bias\)"),
        (
            "other",
            r"another architecture \(2 tensors missing, first 1.bias; 2 tensors of another shape, first 0.bias\)",
        ),
    ],
)
def test_faults(tmp_path, what, line):
    target = network()
    before = [parameter.clone() for parameter in target.parameters()]
    with pytest.raises(InputError, match=line) as error:
        load_weights(target, broken(tmp_path, what))
    assert str(error.value).startswith(str(tmp_path / "model.pt")) and "\n" not in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))
