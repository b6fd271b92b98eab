"""A studies folder, tiny weights, and the server on a free port, started as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import torch
from monai.bundle import ConfigParser

from tests.phantom import affine_of, scan, write_subject

ROOT = Path(__file__).parents[2]
CONFIGS = ["configs/inference.json", "configs/tiny.json"]
CONTRASTS = ["t1", "t1ce", "t2", "flair"]
SHAPE = (32, 42, 27)
AFFINE = affine_of(SHAPE, (2, 2, 2))


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Random weights of the tiny size."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    parser = ConfigParser(ConfigParser.load_config_files([str(ROOT / file) for file in CONFIGS]))
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Exams in folders and as flat files, and what must be refused; beside it, a folder `outside`."""
    studies, outside = tmp_path / "studies", tmp_path / "outside"
    write_exams(studies, outside)
    return studies


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    """As `folder`, once for all tests of a file; the server's."""
    home = tmp_path_factory.mktemp("server")
    write_exams(home / "studies", home / "outside")
    return home / "studies"


def write_exams(studies: Path, outside: Path) -> None:
    thick = (35, 45, 8)
    write_subject(studies / "thick", ["t1", "t2"], thick, affine_of(thick, (1.8, 1.8, 7), "PIR", (14, -9)))
    write_subject(studies / "whole", CONTRASTS, SHAPE, AFFINE)
    write_subject(studies, ["t1", "flair"], SHAPE, AFFINE, name="ana")
    write_subject(studies / "four", ["t2"], SHAPE, AFFINE)
    four = np.stack([scan(SHAPE, AFFINE).get_fdata(dtype=np.float32)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(four, AFFINE), studies / "four" / "four_t1.nii.gz")
    write_subject(outside, ["t1", "t2"], SHAPE, AFFINE)
    write_subject(studies / "linked", ["t1"], SHAPE, AFFINE)
    (studies / "linked" / "linked_t2.nii.gz").symlink_to(outside / "outside_t2.nii.gz")
    (studies / "away_t1.nii.gz").symlink_to(outside / "outside_t1.nii.gz")
    shutil.copyfile(studies / "ana_t1.nii.gz", studies / "picture.nii.gz")


class Server:
    """What a client sees of a server."""

    def __init__(self, url: str, model: str = "synthesis") -> None:
        self.url, self.model = url, model

    def __call__(self, method: str, path: str, **rest) -> requests.Response:
        return requests.request(method, self.url + path, timeout=120, **rest)

    def infer(self, image: str, /, output: str = "json", **options) -> requests.Response:
        place = {"image": image, "output": output}
        return self("POST", f"/infer/{self.model}", params=place, data={"params": json.dumps(options)})


@contextmanager
def serving(
    command: list[str], port: int, log: Path, model: str = "synthesis", folder: Path = ROOT, path: str = ""
) -> Iterator[Server]:
    """Run a server from a folder until the block ends; what it says is printed where a test fails."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        server, end = Server(f"http://127.0.0.1:{port}", model), time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < end, f"no server:\n{log.read_text()}"
            try:
                server("GET", "/info/").raise_for_status()
                break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(60)
        print(log.read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(studies, weights, tmp_path_factory) -> Iterator[Server]:
    port = free_port()
    command = [*(sys.executable, "-m", "scripts.monai_label.start", str(studies), "--port", str(port))]
    command += ["--weights", str(weights), "--config_file", *CONFIGS]
    with serving(command, port, tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running
