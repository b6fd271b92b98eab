"""What the Model Zoo's continuous integration and its guide for contributors ask of a bundle, asked of the release.

The zoo's checks of the metadata's schema and of the properties of each workflow are in test_bundle.py.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from scripts.make_zip import LARGEST, NAME, stage
from tests.conftest import ROOT

# the schema's required keys, then those that the zoo's CI and guide add
METADATA_KEYS = {
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
    *("changelog", "name", "intended_use", "references"),
}
# the zoo's template for docs/README.md (its description as all bundles call it), then what they have besides
SECTIONS = (
    *("Model Overview", "Authors", "Tags", "Data", "Preprocessing", "Performance", "System Configuration"),
    *("Limitations", "Citation Info", "References", "Training configuration", "Input", "Output"),
    *("Memory Consumption Warning", "MONAI Bundle Commands", "License"),
)
PACKAGES = {"ignite": "pytorch-ignite", "skimage": "scikit-image"}
PINNED_APART = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}
OPTIONAL = {
    "nilearn",
    "sklearn",
    "SimpleITK",
}  # only the generated subjects need them, by a script that is not in the release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's folder in a clone of the zoo."""
    return stage(ROOT, tmp_path_factory.mktemp("zoo") / "models")


@pytest.fixture(scope="module")
def metadata(release: Path) -> dict:
    return json.loads((release / "configs/metadata.json").read_text())


def test_the_files_that_a_bundle_must_have(release: Path) -> None:
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/logging.conf"):
        assert (release / name).is_file(), name
    for name in ("models/model.pt", "docs/README.md", "docs/data_license.txt"):
        assert (release / name).is_file(), name
    licence = (release / "LICENSE").read_text()
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence


def test_no_file_is_larger_than_the_zoo_takes(release: Path) -> None:
    assert LARGEST == 25_000_000
    assert max(path.stat().st_size for path in release.rglob("*")) <= LARGEST
    assert not list(release.glob("large_files.*"))  # so nothing has to be fetched from anywhere


def test_the_name_says_anatomy_modality_and_task(release: Path) -> None:
    assert release.name == NAME and re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+){2,}", NAME)
    assert {"brain", "mri", "synthesis"} <= set(NAME.split("_"))


def test_the_metadata(metadata: dict) -> None:
    assert metadata.keys() >= METADATA_KEYS
    assert metadata["schema"].endswith("meta_schema_20240725.json")
    assert metadata["version"] in metadata["changelog"] and re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    assert list(metadata["network_data_format"]["inputs"]) == ["image"]
    assert list(metadata["network_data_format"]["outputs"]) == ["pred"]


def test_the_metadata_names_every_package_that_the_bundle_imports(release: Path, metadata: dict) -> None:
    imported = set()
    for path in (release / "bundle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"bundle"} - OPTIONAL
    assert third_party >= {"torch", "nibabel", "ignite"}
    named = set(metadata["required_packages_version"])
    missing = {PACKAGES.get(name, name) for name in third_party - set(PINNED_APART)} - named
    assert not missing and all(metadata[key] for key in PINNED_APART.values())


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ("inference", ("bundle_root", "device", "network_def", "inferer", "dataset_dir", "output_dir")),
        (
            "train",
            (
                *("bundle_root", "device", "network_def", "dataset_dir", "output_dir"),
                *("train::trainer", "train::trainer::max_epochs", "train::dataset", "train::dataset::data"),
                *("train::inferer", "train::preprocessing", "validate::preprocessing"),
                *("validate::dataset", "validate::dataset::data"),
            ),
        ),
    ],
)
def test_the_keys_have_the_names_that_other_programs_look_for(
    config: str, keys: tuple[str, ...], release: Path
) -> None:
    parser = ConfigParser()
    parser.read_config(str(release / f"configs/{config}.json"))
    assert not [key for key in keys if key not in parser]
    assert parser["bundle_root"] == "."


def test_no_config_holds_a_path_of_somebody(release: Path) -> None:
    configs = sorted((release / "configs").rglob("*.json"))
    assert len(configs) > 5
    found = [path.name for path in configs if re.search(r"\"/|/home/|/Users/|/root/|[A-Z]:\\\\", path.read_text())]
    assert not found


def test_the_network_takes_and_gives_what_the_metadata_says_as_the_zoo_asks(release: Path, tmp_path: Path) -> None:
    """At its full size, in the zoo's way: from another folder, the bundle's root on the path, MONAI's function."""
    code = f"""
import sys
sys.path.insert(0, {str(release)!r})
from monai.bundle import verify_net_in_out
verify_net_in_out(
    net_id="network_def", meta_file={str(release / "configs/metadata.json")!r},
    config_file={str(release / "configs/inference.json")!r}, bundle_root={str(release)!r},
)
import bundle
assert bundle.__file__ == {str(release / "bundle/__init__.py")!r}, bundle.__file__
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "verified with no error" in done.stdout + done.stderr


def test_the_page_has_the_sections_of_the_template(release: Path) -> None:
    page = (release / "docs/README.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (.+?)\s*$", page, re.MULTILINE)}
    assert not [section for section in SECTIONS if section.lower() not in headings]


def test_the_page_says_what_must_be_said(release: Path) -> None:
    page = " ".join((release / "docs/README.md").read_text().split())
    for word in ("TorchScript", "TensorRT", "not to be used clinically", "no real uptake of contrast agent"):
        assert word.lower() in page.lower(), word
    named = set(re.findall(r"configs/[\w/]+\.json", page))
    assert named >= {"configs/train.json", "configs/inference.json", "configs/evaluate.json"}
    assert not [name for name in named if not (release / name).is_file()]


def test_the_licence_of_the_data_names_every_source_of_the_weights(release: Path) -> None:
    card = (release / "models/README.md").read_text().split("## Training data")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in card.splitlines() if line[:1] == "|"]
    sources = {row[0].split("(")[0].strip(): row[-1] for row in rows[2:]}
    assert len(sources) >= 3
    notice = (release / "docs/data_license.txt").read_text()
    items = [" ".join(item.split()) for item in re.split(r"^\d+\. ", notice, flags=re.MULTILINE)[1:]]
    assert len(items) >= len(sources)
    for source, licence in sources.items():
        found = [item for item in items if source.lower() in item.lower()]
        assert found, source
        assert all("Cite: " in item for item in found), source
        if licence.startswith("CC"):
            assert any(re.search(rf"{re.escape(licence)}\b", item) for item in found), (source, licence)
