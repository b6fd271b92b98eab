"""Each override file of the ablations changes what it says, and nothing else, in training, inference and evaluation."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from bundle.networks.disentanglement import Disentanglement
from tests.conftest import ROOT

FILES = sorted((ROOT / "configs/ablations").glob("*.json"))
TRAIN = json.loads((ROOT / "configs/train.json").read_text())
OF_THE_STUDY = {"row", "row_mode"}
PREFIX = "network_def::disentanglement::"


def parser(base: str, *names: str) -> ConfigParser:
    files = [f"{base}.json", "tiny.json", *(f"ablations/{name}.json" for name in names)]
    result = ConfigParser()
    result.read_config([str(ROOT / "configs" / file) for file in files])
    return result


def network(base: str, *names: str) -> Any:
    torch.manual_seed(0)
    return parser(base, *names).get_parsed_content("network_def").eval()


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_the_rows_of_the_paper_are_there():
    names = {file.stem for file in FILES}
    assert names >= {"no_decoupling", "no_hfib", "no_msse", "no_sa", "no_sc"}
    rows = [json.loads(file.read_text())["row"] for file in FILES]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_override_differs_from_the_default(file):
    for key, value in json.loads(file.read_text()).items():
        if key.startswith(PREFIX):
            assert value != inspect.signature(Disentanglement).parameters[key.removeprefix(PREFIX)].default
            assert key.removeprefix(PREFIX) not in TRAIN["network_def"]["disentanglement"]
        elif key not in OF_THE_STUDY:
            assert TRAIN[key] != value, key


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_trained_is_what_is_evaluated(file):
    trained = network("train", file.stem)
    for base in ("inference", "evaluate"):
        assert shapes(network(base, file.stem)) == shapes(trained), base
        config = parser(base, file.stem)
        config.get_parsed_content("options")  # refuses what does not fit together
    x = torch.rand(1, trained.in_channels, 32, 32)
    x[:, 4:8] = torch.tensor([1.0, 0, 1, 1])[:, None, None]
    for mode in ("mean", "sample"):
        trained.mode = mode
        with torch.inference_mode():
            y = trained(x)
        assert torch.isfinite(y).all() and y[0, 1].any()


def test_the_networks_are_those_that_the_rows_say():
    full = network("train")
    size = sum(tensor.numel() for tensor in full.state_dict().values())

    def changed(name: str) -> Any:
        return network("train", name).disentanglement

    assert changed("no_decoupling").mmsf is None and full.disentanglement.mmsf is not None
    assert changed("no_msse").msse is None
    assert not [name for name in changed("no_hfib").state_dict() if "theta" in name]
    assert changed("shared_encoder").encoders.shared and not full.disentanglement.encoders.shared
    assert not changed("paper_skips").decoders[0].skips
    assert changed("region_mask").region_projection is not None
    assert changed("neighbours").neighbours == 1 and network("train", "neighbours").in_channels == 16
    assert [name for name in changed("normalised_fusion").mmsf[0].state_dict() if "adn.N" in name]
    assert not [name for name in full.disentanglement.mmsf[0].state_dict() if "adn.N" in name]
    assert network("train", "paper_prediction").diffusion.prediction == "noise"
    told = network("train", "paper_sampling")
    assert not told.diffusion.mean_guidance and told.start_level == 1.0 and full.start_level < 1
    for name in ("no_freq", "no_sc", "paper_frequency", "paper_prediction"):  # another loss, the same network
        assert sum(tensor.numel() for tensor in network("train", name).state_dict().values()) == size


def test_the_losses_are_those_that_the_rows_say():
    def loss(*names: str) -> Any:
        return parser("train", *names).get_parsed_content("disentanglement::loss")

    full = loss()
    assert all(full.lambdas.values()) and full.sa.frequency_weight and not full.sa.frequency.paper_form
    for name, term in (("no_sc", "sc"), ("no_sa", "sa"), ("no_decoupling", "sc")):
        assert loss(name).lambdas == {**full.lambdas, term: 0}
    assert loss("no_freq").sa.frequency_weight == 0 and loss("no_freq").lambdas == full.lambdas
    assert loss("paper_frequency").sa.frequency.paper_form


@pytest.mark.parametrize("depth", [1, 9])
def test_with_neighbours_training_and_inference_give_the_network_the_same_slices(depth):
    config = parser("train", "neighbours")
    config.update({"train_window": 16, "slices_per_subject": 40})
    places = torch.arange(depth) / 100 + 0.5
    image = places.expand(4, 16, 16, -1).half()
    item = {
        "image": image,
        "regions": image[:3].float(),
        "brain": torch.ones(1, 16, 16, depth),
        "exists": torch.ones(4),
    }
    cut = Compose(config.get_parsed_content("augment_slice")[:3])
    windows = cut(item)
    trained = {tuple(((w["image"][::4, 8, 8].float() - 0.5) * 100).round().int().tolist()) for w in windows}
    assert all(w["regions"].shape == (3, 16, 16) and torch.equal(w["brain"], torch.ones(1, 16, 16)) for w in windows)
    assert trained == {(z, max(z - 1, 0), min(z + 1, depth - 1)) for z in range(depth)}
    seen = set()

    def look(x):
        seen.update(tuple(row) for row in ((x[:, [0, 8, 12], 8, 8] - 0.5) * 100).round().int().tolist())
        return x[:, :4]

    stack = torch.cat([torch.zeros(8, 16, 16, 2), torch.cat([image.float(), torch.ones(4, 16, 16, depth)])], dim=-1)
    parser("inference", "neighbours").get_parsed_content("inferer")(stack[None], look)
    assert seen == trained
