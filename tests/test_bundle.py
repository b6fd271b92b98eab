"""MONAI's own checks of a bundle, and what must be kept in step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow

from bundle import __version__
from bundle.data.contrasts import load_registry
from bundle.networks.weights import load_weights
from tests.conftest import ROOT

METADATA = json.loads((ROOT / "configs/metadata.json").read_text())


def bundle_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_the_metadata_obeys_the_schema_of_monai(shared_data: Path, tmp_path: Path) -> None:
    schema = shared_data.parent / "schemas" / "meta_schema_20240725.json"
    if not schema.is_file():
        pytest.skip(f"no copy of MONAI's schema: {schema}")
    (tmp_path / "schema.json").write_bytes(schema.read_bytes())
    done = bundle_command(
        "verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", str(tmp_path / "schema.json")
    )
    assert "metadata is verified with no error" in done.stdout + done.stderr and done.returncode == 0


def test_the_network_takes_and_gives_what_the_metadata_says() -> None:
    done = bundle_command(
        "verify_net_in_out",
        "network_def",
        "--meta_file",
        "configs/metadata.json",
        "--config_file",
        "['configs/inference.json','configs/tiny.json']",
        "--n",
        "2",
    )
    assert "verified with no error" in done.stdout + done.stderr and done.returncode == 0


@pytest.mark.parametrize(("config", "kind"), [("inference", "infer"), ("evaluate", "infer"), ("train", "train")])
def test_every_property_that_monai_asks_for_is_there(config: str, kind: str, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs/inference.json"), str(ROOT / "configs/tiny.json")])
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    scans = tmp_path / "scans" / "a"
    scans.mkdir(parents=True)
    for name in ("t1", "t2"):
        image = np.random.default_rng(0).uniform(1, 9, (20, 20, 20)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), scans / f"a_{name}.nii.gz")
    overrides = {"dataset_dir": str(scans.parent), "output_dir": str(tmp_path / "out"), "bundle_root": str(ROOT)}
    if kind == "infer":
        overrides["weights"] = str(tmp_path / "model.pt")
    workflow = create_workflow(
        config_file=[str(ROOT / f"configs/{config}.json"), str(ROOT / "configs/tiny.json")],
        workflow_type=kind,
        **overrides,
    )
    assert workflow.check_properties() == []
    assert workflow.version == __version__


def test_versions_are_in_step() -> None:
    assert METADATA["version"] == __version__
    assert __version__ in METADATA["changelog"]
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and "< " not in line
    )
    assert METADATA["monai_version"] == pins["monai"] and METADATA["pytorch_version"] == pins["torch"]
    for package, version in METADATA["required_packages_version"].items():
        assert pins[package] == version, package


@pytest.mark.parametrize("other", ["inference", "evaluate"])
def test_every_config_describes_the_network_that_is_trained(other: str) -> None:
    train, second = (json.loads((ROOT / f"configs/{name}.json").read_text()) for name in ("train", other))
    assert train["network_def"] == second["network_def"]
    own = {"dataset_dir", "output_dir", "paths", "initialize", "run", "amp"}
    for key in (train.keys() & second.keys()) - own:
        assert train[key] == second[key], key
    # float16, on GPUs without bfloat16, is for inference alone
    types = [config["amp"]["_target_"].removeprefix("bundle.engines.device.") for config in (train, second)]
    assert types == ["bfloat16_is_fast", "half_is_fast"]


def test_the_shipped_weights_fit_and_are_small() -> None:
    path = ROOT / "models/model.pt"
    assert path.stat().st_size < 25e6
    parser = ConfigParser()
    parser.read_config(str(ROOT / "configs/inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(path, weights_only=True))
    assert network.latent_scale.item() != 1.0
    assert network.disentanglement.style_bank.mean.abs().sum() > 0


def test_the_shipped_u_net_fits_its_configs() -> None:
    parser = ConfigParser()
    names = ("inference", "baselines/unet_network", "baselines/unet_weights")
    parser.read_config([str(ROOT / f"configs/{name}.json") for name in names])
    parser["bundle_root"] = str(ROOT)
    path = Path(parser.get_parsed_content("weights"))
    assert path == ROOT / "models/unet.pt" and path.stat().st_size < 5e6
    load_weights(parser.get_parsed_content("network_def"), path)  # checks the checksum beside it
    t2 = load_registry(parser["registry"])["t2"].intensity
    assert (t2.low, t2.high, t2.level) == (0.5, 50, 0.3)
