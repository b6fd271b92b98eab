"""The configs of ALDM: each override changes what it says, in training, inference and evaluation alike."""

import json

import pytest
import torch
from monai.bundle import ConfigParser, create_workflow, verify_net_in_out
from torch import nn

from bundle.errors import InputError
from bundle.networks.ms_spade import MSSPADE
from tests.conftest import ROOT
from tests.phantom import affine_of, write_subject

FOLDER = ROOT / "configs/aldm"
SIZES = ("tiny", "cpu", "paper")
ABLATIONS = sorted(path.stem for path in (FOLDER / "ablations").glob("*.json"))
BASES = ("train", "inference", "evaluate")


def parser(base, *names, **changes):
    result = ConfigParser()
    result.read_config([str(FOLDER / f"{name}.json") for name in (base, *names)])
    result.update(changes)
    return result


def network(base, *names):
    with torch.device("meta"):
        return parser(base, *names).get_parsed_content("network_def")


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("size", SIZES)
def test_every_override_is_of_something(size):
    known = json.loads((FOLDER / "train.json").read_text())
    given = json.loads((FOLDER / f"{size}.json").read_text())
    assert set(given) <= set(known) and all(known[key] != value for key, value in given.items())


@pytest.mark.parametrize(
    "names", [(), *((size,) for size in SIZES), *(("tiny", f"ablations/{name}") for name in ABLATIONS)]
)
def test_what_is_trained_is_what_is_used(names):
    trained = shapes(network("train", *names))
    for base in BASES[1:]:
        assert shapes(network(base, *names)) == trained, base
        parser(base, *names).get_parsed_content("options")  # refuses what does not fit together


def test_the_ablations():
    assert {"no_diffusion", "no_palette", "no_ms_spade", "kl", "cross_attention", "trunk_norm"} <= set(ABLATIONS)
    rows = [json.loads((FOLDER / "ablations" / f"{name}.json").read_text())["row"] for name in ABLATIONS]
    assert len(set(rows)) == len(rows)
    full = network("train", "tiny")
    changed = {name: network("train", "tiny", f"ablations/{name}") for name in ABLATIONS}
    assert isinstance(full.ms_spade, MSSPADE) and changed["no_ms_spade"].ms_spade is None
    assert full.diffusion.palette and not changed["no_palette"].diffusion.palette
    assert changed["no_palette"].start_level < full.start_level == 1
    assert changed["kl"].autoencoder.encoder.blocks[-1].conv.out_channels == 2 * full.autoencoder.latent_channels
    assert changed["cross_attention"].diffusion.conditioning == "cross_attention"
    normed = [any(isinstance(m, nn.InstanceNorm3d) for m in net.modules()) for net in (changed["trunk_norm"], full)]
    assert normed == [True, False]
    assert changed["noise_prediction"].diffusion.prediction == "noise"
    assert parser("inference", "ablations/no_diffusion").get_parsed_content("options").mode == "mean"
    assert parser("train", "ablations/no_cycle").get_parsed_content("cycle_weight") == 0


@pytest.mark.parametrize(("name", "stage"), [("no_ms_spade", "translation"), ("no_diffusion", "train::trainer")])
def test_a_stage_that_trains_nothing_is_left_out(name, stage):
    for names, left_out in (((), False), ((f"ablations/{name}",), True)):
        assert parser("train", *names).get_parsed_content(f"{stage}::_disabled_") is left_out


@pytest.mark.parametrize("option", ["sources", "targets"])
def test_what_the_user_gives_is_checked(option):
    with pytest.raises(RuntimeError) as raised:
        parser("inference", **{option: ["pd"]}).get_parsed_content("options")
    assert isinstance(raised.value.__cause__, InputError) and f"--{option}" in str(raised.value.__cause__)


def test_the_size_of_the_paper():
    """Tables B and C: the networks that they describe, counted by hand and in MONAI."""
    model = network("train", "paper")
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    print(millions)
    assert millions["ms_spade"] == pytest.approx(92.8, rel=0.02)
    assert millions["diffusion"] == pytest.approx(197.0, rel=0.02)
    assert model.divisor == 16 and model.autoencoder.factor == 4


@pytest.mark.parametrize("other", BASES[1:])
def test_every_config_describes_the_network_that_is_trained(other):
    train, second = (json.loads((FOLDER / f"{name}.json").read_text()) for name in ("train", other))
    own = {"dataset_dir", "output_dir", "paths", "initialize", "run", "amp"}  # see tests/test_bundle.py
    for key in (train.keys() & second.keys()) - own:
        assert train[key] == second[key], key
    assert "network_def" in train.keys() & second.keys()


@pytest.mark.parametrize(("config", "kind"), [("inference", "infer"), ("evaluate", "infer"), ("train", "train")])
def test_every_property_that_monai_asks_for_is_there(config, kind, tmp_path):
    torch.save(parser("inference", "tiny").get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    write_subject(tmp_path / "scans" / "a", ["t1", "t2"], (20, 20, 20), affine_of((20, 20, 20), (1, 1, 1)))
    overrides = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "out"), "bundle_root": str(ROOT)}
    if kind == "infer":
        overrides["weights"] = str(tmp_path / "model.pt")
    files = [str(FOLDER / f"{config}.json"), str(FOLDER / "tiny.json")]
    workflow = create_workflow(config_file=files, workflow_type=kind, **overrides)
    assert workflow.check_properties() == []


def test_the_network_takes_and_gives_what_the_metadata_says():
    files = [str(FOLDER / f"{name}.json") for name in ("inference", "tiny")]
    verify_net_in_out("network_def", meta_file=str(FOLDER / "metadata.json"), config_file=files, n=1, num_steps=1)


def test_versions_are_in_step():
    ours, theirs = (json.loads((folder / "metadata.json").read_text()) for folder in (FOLDER, ROOT / "configs"))
    own = {"name", "description", "authors", "data_source", "references", "network_data_format"}
    assert ours.keys() == theirs.keys()
    for key in ours.keys() - own:
        assert ours[key] == theirs[key], key
