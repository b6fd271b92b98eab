"""The bundle in MONAI Label's own app for bundles, which knows nothing of it; driven over REST."""

import gzip
import json
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: run make test-label")

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402

from bundle.api import synthesise  # noqa: E402
from tests.label.conftest import AFFINE, CONFIGS, CONTRASTS, ROOT, SHAPE, free_port, serving  # noqa: E402
from tests.phantom import affine_of, scan, write_subject  # noqa: E402

NAME = "brain_mri_missing_contrast_synthesis"
APP = Path(sys.prefix, "monailabel", "sample-apps", "monaibundle")
THICK = (35, 45, 8)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Flat files, as the stock datastore wants them."""
    folder = tmp_path_factory.mktemp("studies")
    write_subject(folder, ["t1", "t2"], THICK, affine_of(THICK, (1.8, 1.8, 7), "PIR", (14, -9)), name="thick")
    write_subject(folder, CONTRASTS, SHAPE, AFFINE, name="whole")
    write_subject(folder, ["t2"], SHAPE, AFFINE, name="four")
    volumes = np.stack([scan(SHAPE, AFFINE).get_fdata(dtype=np.float32)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(volumes, AFFINE), folder / "four_t1.nii.gz")
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="module")
def server(studies, weights, log, tmp_path_factory):
    """The stock app with the bundle, in the tiny size, in its folder of models; started from somewhere else."""
    home = tmp_path_factory.mktemp("stock")
    shutil.copytree(APP, home / "app")
    bundle = home / "app" / "model" / NAME
    for folder in ("configs", "models"):
        (bundle / folder).mkdir(parents=True)
    config = ConfigParser.load_config_files([str(ROOT / file) for file in CONFIGS])
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    shutil.copyfile(ROOT / "configs" / "metadata.json", bundle / "configs" / "metadata.json")
    shutil.copyfile(weights, bundle / "models" / "model.pt")
    (bundle / "bundle").symlink_to(ROOT / "bundle")
    port = free_port()
    command = [*(sys.executable, "-m", "monailabel.main", "start_server", "--host", "127.0.0.1", "--port", str(port))]
    command += ["--app", str(home / "app"), "--studies", str(studies)]
    for setting in (("models", NAME), ("skip_trainers", "true"), ("sam2", "false"), ("zoo_source", "ngc")):
        command += ["--conf", *setting]
    with serving(command, port, log, NAME, home, stand_in_for_torchvision(home)) as running:
        yield running


def stand_in_for_torchvision(home):
    """A folder for the path: MONAI Label imports two functions of torchvision for pictures, which are not used here."""
    if find_spec("torchvision"):
        return ""
    package = home / "path" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "utils.py").write_text("make_grid = save_image = None\n")
    return str(package.parent)


def synthesised(server, image, **options):
    """The volume that the server makes."""
    answer = server.infer(image, output="image", **options)
    assert answer.status_code == 200, answer.text
    return nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))


def wanted(studies, weights, subject, given, target):
    scans = {name: studies / f"{subject}_{name}.nii.gz" for name in given}
    return synthesise(**scans, targets=target, weights=weights, config_file=[ROOT / file for file in CONFIGS])[target]


def test_what_a_client_may_choose(server):
    model = server("GET", "/info/").json()["models"][NAME]
    assert model["config"]["target"] == ["first missing", *CONTRASTS]


@pytest.mark.parametrize(
    ("image", "options", "given", "target"),
    [
        ("thick_t2", {}, ["t1", "t2"], "t1ce"),
        ("thick_t2", {"target": "flair"}, ["t1", "t2"], "flair"),
        ("whole_flair", {"target": "t1"}, ["t1ce", "t2", "flair"], "t1"),
    ],
)
def test_one_contrast_of_an_exam(server, studies, weights, image, options, given, target):
    made = synthesised(server, image, **options)
    subject = image.split("_")[0]
    right = wanted(studies, weights, subject, given, target)
    reference = nib.load(studies / f"{subject}_{given[0]}.nii.gz")
    assert made.get_data_dtype() == np.float32 and made.shape == reference.shape == right.shape
    assert np.allclose(made.affine, reference.affine, atol=1e-4)
    assert np.ptp(right.get_fdata()) > 0.01
    assert np.allclose(made.get_fdata(), right.get_fdata(), atol=1e-5)


def test_what_a_client_keeps_is_no_scan(server, studies):
    """The stock app keeps results as labels only."""
    before = synthesised(server, "thick_t1", target="flair")
    file = {"label": ("thick_t1.nii.gz", (studies / "whole_flair.nii.gz").read_bytes())}
    server("PUT", "/datastore/label", params={"image": "thick_t1"}, files=file).raise_for_status()
    assert list((studies / "labels").rglob("thick_t1.nii.gz"))
    assert np.array_equal(synthesised(server, "thick_t1", target="flair").get_fdata(), before.get_fdata())


@pytest.mark.parametrize(
    ("image", "options", "line"),
    [
        ("whole_t1", {}, "whole: nothing is missing of t1, t1ce, t2, flair. Name a target"),
        ("four_t2", {}, "four_t1.nii.gz: is 4-D (32 x 42 x 27 x 2). Split it"),
        ("nobody_t1", {}, "is none of t1, t1ce, t2, flair by its name"),
        ("thick_t1", {"target": "$print(1)"}, "target '$print(1)' is unknown. Use one of first missing, t1, t1ce"),
    ],
)
def test_requests_that_fail(server, log, image, options, line):
    """The stock app has one status for all faults, and tells what it was in its log."""
    assert server.infer(image, **options).status_code == 500
    end = time.monotonic() + 30  # the answer is sent first
    while line not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
