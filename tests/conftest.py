"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real scans; tests that need it skip, saying so, where it is absent."""
    folder = Path(os.environ.get("MSG_LDM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans: {folder} does not exist (set MSG_LDM_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def label_maps(shared_data: Path) -> Path:
    """Folder of the published label maps and lesion masks, beside the real scans; skips where it is absent."""
    folder = shared_data.parent / "label_maps"
    if not folder.is_dir():
        pytest.skip(f"no label maps: {folder} does not exist")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers in every run, in whatever order the tests come."""
    torch.manual_seed(0)
