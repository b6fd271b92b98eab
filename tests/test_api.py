"""bundle.synthesise: what the command makes, from Python."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow, load, run

import bundle
from bundle import synthesise
from bundle.errors import InputError
from tests.conftest import ROOT
from tests.phantom import affine_of, scan, world_of, write_subject

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:tests.test_api", "ignore:parsing config_file:UserWarning")

CONFIGS = [ROOT / "configs/inference.json", ROOT / "configs/tiny.json"]
SHAPE = (36, 46, 3)  # a slab of the brain, 2 mm: 6 slices of the network
AFFINE = affine_of(SHAPE, (2, 2, 2), "LPS", (5, -4))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny network, in a folder whose name MONAI's config language would not leave alone."""
    path = tmp_path_factory.mktemp("weights") / "$a @b #c%d" / "model.pt"
    path.parent.mkdir()
    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_config([str(file) for file in CONFIGS])
    network = parser.get_parsed_content("network_def")
    network.disentanglement.style_bank.mean.normal_()
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A subject without T1CE and FLAIR, its T1 stored as scaled integers."""
    folder = tmp_path_factory.mktemp("scans") / "sub-001"
    paths = write_subject(folder, ["t1", "t2"], SHAPE, AFFINE)
    image = scan(SHAPE, AFFINE)
    scaled = nib.Nifti1Image(image.get_fdata() / 7, None, image.header)
    scaled.header.set_data_dtype(np.uint8)
    nib.save(scaled, paths["t1"])
    assert nib.load(paths["t1"]).dataobj.slope != 1
    return paths


def made_by_command(
    dataset: Path, output: Path, weights: Path, patch: pytest.MonkeyPatch, **options: object
) -> dict[str, nib.Nifti1Image]:
    """What `run inference` writes for the one subject of a folder."""
    patch.setattr(sys, "excepthook", sys.excepthook)  # which the config replaces
    shutil.copy(weights, output.parent / "model.pt")
    settings = {"dataset_dir": str(dataset), "output_dir": str(output), "weights": str(output.parent / "model.pt")}
    run(run_id="inference", config_file=[str(file) for file in CONFIGS], logging_file=False, **settings, **options)
    folder = output / "sub-001"
    ends = re.compile(r"sub-001_(\w+?)(?:_synth|(_uncertainty))\.nii\.gz")
    found = {path: ends.fullmatch(path.name) for path in sorted(folder.iterdir())}
    return {match[1] + (match[2] or ""): nib.load(path) for path, match in found.items() if match}


def assert_same(results: dict[str, nib.Nifti1Image], expected: dict[str, nib.Nifti1Image]) -> None:
    assert results.keys() == expected.keys()
    for name, image in results.items():
        voxels = np.asanyarray(image.dataobj)
        assert voxels.dtype == np.float32 and np.std(voxels) > 0.01
        np.testing.assert_array_equal(voxels, np.asanyarray(expected[name].dataobj), err_msg=name)
        np.testing.assert_allclose(image.affine, expected[name].affine, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "sample", "num_samples": 2, "seed": 5, "start_level": 0.5, "targets": ["t1ce", "t1"]},
        {"mirrored": True},
        {"mode": "sample", "num_samples": 2, "three_planes": True},
    ],
    ids=["mean", "samples", "mirrored", "three planes"],
)
def test_makes_what_the_command_writes(
    options: dict, scans: dict[str, str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made_by_command(Path(scans["t1"]).parents[1], tmp_path / "out", weights, monkeypatch, **options)
    results = synthesise(**scans, weights=weights, config_file=CONFIGS, **options)
    made = options.get("targets", ["t1ce", "flair"])
    assert set(results) == {*made, *(f"{name}_uncertainty" for name in made if "mode" in options)}
    assert_same(results, expected)
    for name, image in results.items():
        assert image.header["qform_code"] == image.header["sform_code"] == 1 and image.get_filename() is None
        assert image.header["descrip"] == expected[name].header["descrip"]


def test_every_form_of_a_scan_gives_the_same(
    scans: dict[str, str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = synthesise(**scans, weights=str(weights), config_file=CONFIGS)
    t1, t2 = (nib.load(scans[name]) for name in ("t1", "t2"))
    forms = {
        "Path": {"t1": Path(scans["t1"]), "t2": Path(scans["t2"])},
        "nibabel": {"t1": t1, "t2": t2},
        "NIfTI 2 and FreeSurfer": {
            "t1": nib.Nifti2Image.from_image(t1),
            "t2": nib.MGHImage(np.asarray(t2.dataobj), t2.affine),
        },
        "arrays": {
            "t1": (t1.get_fdata(), t1.affine),
            "t2": (torch.from_numpy(np.asarray(t2.dataobj, dtype=np.int64)), torch.from_numpy(t2.affine)),
        },
    }
    for name, form in forms.items():
        print(name)
        assert_same(synthesise(**form, weights=weights, config_file=CONFIGS), expected)
    assert not list(tmp_path.iterdir())


def test_bytes_in_the_other_order_and_another_background_give_the_same(
    scans: dict[str, str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A big-endian reference, from a file and in memory, by function and by command; a scan shifted by -600."""
    expected = synthesise(**scans, weights=weights, config_file=CONFIGS)
    folder = tmp_path / "scans/sub-001"
    folder.mkdir(parents=True)
    paths = {}
    for name, path in scans.items():
        image = nib.load(path)
        paths[name] = str(folder / f"sub-001_{name}.nii.gz")
        voxels = image.get_fdata().astype(">f4")
        nib.save(nib.Nifti1Image(voxels, image.affine, nib.Nifti1Header(endianness=">")), paths[name])
        assert nib.load(paths[name]).header.endianness == ">"
    close = {"rtol": 0, "atol": 1e-4}
    found = synthesise(**paths, weights=weights, config_file=CONFIGS)
    in_memory = synthesise(**{n: nib.load(p) for n, p in paths.items()}, weights=weights, config_file=CONFIGS)
    written = made_by_command(tmp_path / "scans", tmp_path / "out", weights, monkeypatch)
    values = {name: nib.load(path).get_fdata() - 600 for name, path in paths.items()}
    shifted = {name: (values[name], nib.load(path).affine) for name, path in paths.items()}
    with pytest.warns(UserWarning, match="the background is -600 in the file, taken as 0"):
        moved = synthesise(**shifted, weights=weights, config_file=CONFIGS)
    for name, image in expected.items():
        for other in (found, in_memory, written, moved):
            np.testing.assert_allclose(other[name].get_fdata(), image.get_fdata(), **close, err_msg=name)


def test_a_mask_is_used_as_by_the_command(
    scans: dict[str, str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in" / "sub-001"
    folder.mkdir(parents=True)
    for path in scans.values():
        shutil.copy(path, folder)
    half = (nib.load(scans["t1"]).get_fdata() > 0) & (world_of(SHAPE, AFFINE)[..., 0] < 0)
    nib.save(nib.Nifti1Image(half.astype(np.uint8), AFFINE), folder / "sub-001_mask.nii.gz")
    expected = made_by_command(folder.parent, tmp_path / "out", weights, monkeypatch, targets=["flair"])
    results = synthesise(**scans, mask=(half, AFFINE), targets="flair", weights=weights, config_file=CONFIGS)
    assert_same(results, expected)
    assert not results["flair"].get_fdata()[~half].any()


def test_a_target_is_hidden_from_the_network(scans: dict[str, str], weights: Path) -> None:
    settings = {"targets": "t1", "weights": weights, "config_file": CONFIGS}
    assert_same(synthesise(**scans, **settings), synthesise(t2=scans["t2"], **settings))


def test_nothing_is_made_where_nothing_is_missing(scans: dict[str, str], weights: Path) -> None:
    every = dict.fromkeys(("t1", "t1ce", "t2", "flair"), scans["t1"])
    assert synthesise(**every, weights=weights, config_file=CONFIGS) == {}


def test_warnings_are_issued_and_nothing_else_is_touched(
    scans: dict[str, str], weights: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    state, hook = torch.get_rng_state(), sys.excepthook
    voxels = np.asarray(nib.load(scans["t2"]).dataobj, dtype=np.float32)
    voxels[0, 0, 0] = np.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        synthesise(t2=(voxels, AFFINE), targets=["t1ce"], weights=weights, config_file=CONFIGS)
    texts = [str(warning.message) for warning in caught if warning.filename == __file__]
    assert texts == [
        "t2.nii: 1 voxels were NaN or infinite, repaired from their neighbours",
        "t1ce is synthetic: it shows no real uptake of contrast agent and says nothing about enhancement",
    ]
    assert torch.equal(torch.get_rng_state(), state) and sys.excepthook is hook
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def bad(change: dict) -> dict:
    """Arguments of `synthesise` with a fault."""
    return {"t1": (scan(SHAPE, AFFINE).get_fdata(), AFFINE), **change}


CUBE = np.ones((8, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"t1": None}, "no scan is left to make t1, t1ce, t2, flair from. Give at least one of t1, t1ce, t2, flair"),
        ({"t2": "nowhere.nii"}, "nowhere.nii: does not exist. Fetch the file, or leave this scan out"),
        ({"t2": 7}, "t2 is of type int, which is no scan. Give a path, a nibabel image or a pair (array, affine)"),
        ({"t2": CUBE}, "t2 is of type ndarray, which is no scan. "),
        ({"t2": (CUBE,)}, "t2 is of type tuple, which is no scan. "),
        ({"t2": (CUBE * 1j, AFFINE)}, "t2 has voxels of type complex64. Give one real number per voxel"),
        ({"t2": (CUBE, np.eye(3))}, "t2 has an affine that is none. Give the invertible matrix (4, 4) from voxel"),
        ({"t2": (CUBE, AFFINE.T)}, "t2 has an affine that is none. "),
        ({"t2": (CUBE, np.diag([1, 1, 0, 1]))}, "t2 has an affine that is none. "),
        ({"t2": (CUBE, AFFINE * np.nan)}, "t2 has an affine that is none. "),
        ({"t2": nib.Nifti1Image(CUBE, None)}, "t2 has an affine that is none. "),
        ({"t2": (CUBE, np.diag([90, 90, 90, 1]))}, "t2.nii: has voxels of 90 x 90 x 90 mm, which no brain scan has. "),
        ({"t2": (CUBE[..., None] * [1, 2], AFFINE)}, "t2.nii: is 4-D (8 x 8 x 8 x 2). Split it into one 3-D file"),
        ({"t2": (CUBE, AFFINE)}, "t2.nii: all voxels have one value, 1: there is no image in it. "),
        ({"mask": (CUBE, np.eye(3))}, "mask has an affine that is none. "),
        ({"targets": "t7"}, "target 't7' is unknown. Use --targets with some of t1, t1ce, t2, flair"),
        ({"mode": "$exit()"}, "mode '$exit()' is unknown. Use --mode mean or sample"),
        ({"num_samples": 0}, "num_samples is 0. "),
        ({"num_steps": 0}, "num_steps is 0. "),
        ({"start_level": 2}, "start_level 2 is not a level of noise. "),
        ({"weights": "nowhere.pt"}, "nowhere.pt: the file with the network's weights is missing. "),
        ({"config_file": "nowhere.json"}, "nowhere.json: the config is missing. Name configs/inference.json"),
        ({"device": "abacus"}, "device 'abacus' is unknown. Use 'cpu' or 'cuda:0'"),
    ],
)
def test_faults_are_told_in_a_line(change: dict, line: str, weights: Path) -> None:
    arguments = {"weights": weights, "config_file": CONFIGS, **bad(change)}
    with pytest.raises(InputError) as error:
        synthesise(**arguments)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_scans_that_lie_apart_are_told_by_their_contrasts(weights: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 300
    values = scan(SHAPE, AFFINE).get_fdata()
    with pytest.raises(InputError, match=r"^t2\.nii: does not overlap with the reference scan t1\.nii\. "):
        synthesise(t1=(values, AFFINE), t2=(values, moved), weights=weights, config_file=CONFIGS)


def test_a_contrast_that_the_network_does_not_know_is_refused(
    scans: dict[str, str], weights: Path, tmp_path: Path
) -> None:
    config = json.loads(CONFIGS[0].read_text()) | {"contrasts": ["t1", "flair"]}
    (tmp_path / "two.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"^t2: not a contrast of this network\. Give some of t1, flair$"):
        synthesise(**scans, weights=weights, config_file=tmp_path / "two.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_told(weights: Path) -> None:
    with pytest.raises(InputError, match=r"^device 'cuda:0' cannot be used: there is no CUDA here\. "):
        synthesise(**bad({}), weights=weights, config_file=CONFIGS, device="cuda:0")


def test_the_defaults_are_those_of_the_config() -> None:
    config = json.loads(CONFIGS[0].read_text())
    parameters = inspect.signature(synthesise).parameters
    for name in ("targets", "mode", "num_samples", "seed", "mirrored", "three_planes"):
        assert parameters[name].default == config[name], name
    assert set(config["contrasts"]) <= parameters.keys()


def test_importing_the_package_is_light_and_its_version_is_read_without_that() -> None:
    code = """
import sys, bundle
from setuptools.config.expand import read_attr
assert read_attr("bundle.__version__") == bundle.__version__
assert not {"torch", "monai", "numpy", "nibabel"} & sys.modules.keys()
assert not hasattr(bundle, "synthesize")
assert bundle.synthesise.__module__ == "bundle.api" and "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=600)
    assert bundle.synthesise is synthesise


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A copy of the bundle with the tiny network, its weights where a bundle has them."""
    root = tmp_path_factory.mktemp("zoo") / "tiny_bundle"
    shutil.copytree(ROOT / "bundle", root / "bundle", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", root / "configs")
    sizes = json.loads(CONFIGS[1].read_text())
    for name in ("inference", "train"):
        config = json.loads((ROOT / f"configs/{name}.json").read_text())
        config |= {key: value for key, value in sizes.items() if key in config}
        (root / f"configs/{name}.json").write_text(json.dumps(config))
    (root / "models").mkdir()
    shutil.copy(weights, root / "models/model.pt")
    return root


@pytest.mark.parametrize("workflow_type", ["inference", "train"])
def test_monai_loads_the_network(
    workflow_type: str, tiny_bundle: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    network = load("tiny_bundle", bundle_dir=tiny_bundle.parent, workflow_type=workflow_type, device="cpu")
    expected = torch.load(weights, weights_only=True)
    found = network.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_monai_makes_a_workflow(
    tiny_bundle: Path, scans: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    workflow = create_workflow(
        config_file=str(tiny_bundle / "configs/inference.json"),
        workflow_type="infer",
        bundle_root=str(tiny_bundle),
        dataset_dir=str(Path(scans["t1"]).parents[1]),
        output_dir=str(tmp_path / "out"),
    )
    assert workflow.check_properties() == []
    workflow.run()
    written = nib.load(tmp_path / "out/sub-001/sub-001_flair_synth.nii.gz")
    made = synthesise(**scans, targets="flair", config_file=tiny_bundle / "configs/inference.json")
    assert_same(made, {"flair": written})


def test_the_examples_of_the_documentation_run(tiny_bundle: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs/python.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 5
    anat = tmp_path / "demo/scans/sub-003/anat"
    write_subject(anat, ["T1w", "ce-gadolinium_T1w"], SHAPE, AFFINE, "sub-003")
    (tmp_path / "examples.py").write_text("\n".join(examples))
    for name in ("configs", "models"):  # the root of a bundle, as in the examples
        (tmp_path / name).symlink_to(tiny_bundle / name)
    environment = {**os.environ, "PYTHONPATH": str(tiny_bundle)}
    done = subprocess.run(
        [sys.executable, "examples.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "t2 is missing" not in done.stdout and "does not exist. Fetch the file" in done.stdout
    assert nib.load(tmp_path / "sub-003_flair_synth.nii.gz").shape == SHAPE
    assert (tmp_path / "out/sub-003/sub-003_t2_synth.nii.gz").is_file()
