import logging
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose, Lambdad

from bundle.engines.aldm_latents import LatentStore, load_latents
from tests.networks.aldm_models import tiny


class Counted(list):
    """A data set that notes what is read."""

    def __init__(self, items):
        super().__init__(items)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


class Brighter(Compose):
    """Adds `seen`, the image times 0.5."""

    def __init__(self):
        super().__init__([Lambdad("seen", lambda x: x)])

    def __call__(self, data):
        return {**data, "seen": data["image"] * 0.5}


@pytest.fixture
def store(tmp_path):
    """A function that makes a store of two subjects, one of them without T1CE."""
    exists = (torch.ones(4), torch.tensor([1.0, 0, 1, 1]))
    volumes = [
        {
            "image": (torch.rand(4, 16, 16, 8) * e[:, None, None, None]).half(),
            "exists": e,
            "brain": torch.ones(1, 16, 16, 8),
        }
        for e in exists
    ]
    weights = tmp_path / "finished.pt"
    weights.write_bytes(b"weights")

    def make(copies=2):
        subjects = [{"subject": "A"}, {"subject": "B"}]
        return LatentStore(
            tiny(), subjects, Counted(volumes), Brighter(), copies, str(tmp_path / "latents"), str(weights),
            torch.device("cpu"),
        )  # fmt: skip

    return make


def test_what_is_stored(store, caplog):
    made = store()
    with caplog.at_level(logging.INFO):
        made.run()
    assert [Path(path).name for path in made.files] == ["A_0.pt", "A_1.pt", "B_0.pt", "B_1.pt"]
    plain, changed = (load_latents(path) for path in made.files[2:])
    assert plain["image"].shape == (4, 3, 4, 4, 2) and plain["exists"].tolist() == [1, 0, 1, 1]
    assert torch.equal(plain["seen"], plain["image"]) and not plain["image"][1].any()
    with torch.no_grad():
        scan = made.dataset[1]["image"][2].float()
        for latents, shown in ((plain, scan), (changed, scan * 0.5)):
            torch.testing.assert_close(latents["seen"][2], made.model.encode(shown[None, None])[0].half().float())
    torch.testing.assert_close(changed["image"], plain["image"])
    assert "codebook: the training scans use" in caplog.text and "of 32 codes" in caplog.text


def test_nothing_is_made_twice_until_the_autoencoder_changes(store):
    store().run()
    again = store()
    again.run()
    assert not again.dataset.read
    Path(again.files[1]).unlink()
    again.run()
    assert again.dataset.read == [0]
    again.made_with.write_bytes(b"other weights")
    again.run()
    assert again.dataset.read == [0, 0, 1]
    fewer = store(copies=1)
    fewer.run()
    assert len(list(fewer.folder.glob("*.pt"))) == 2
