"""What results.json tells of where it comes from."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys

import pytest

from bundle.engines.provenance import checksums, command_line, commit


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    result = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_commit(repository):
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "v1")  # tags do not take the hash's place
    assert len(head) == 40 and commit(repository) == head
    (repository / "new").write_text("untracked: no part of the code")
    assert commit(repository) == head
    (repository / "file").write_text("two")
    assert commit(repository) == f"{head}+changes"


def test_no_commit(repository, tmp_path, monkeypatch):
    assert commit(repository / "inner") is None  # an installed copy inside another project
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert commit(repository) is None  # no git


def test_command_line(monkeypatch):
    command = ["/usr/bin/python3", "-m", "monai.bundle", "run", "evaluation", "--dataset_dir", "my scans"]
    monkeypatch.setattr(sys, "orig_argv", command)
    assert command_line() == "python3 -m monai.bundle run evaluation --dataset_dir 'my scans'"
    assert shlex.split(command_line())[1:] == command[1:]


def test_checksums(tmp_path):
    files = {key: tmp_path / key for key in ("t1", "label")}
    for key, file in files.items():
        file.write_bytes(key.encode())
    paths = {key: str(file) for key, file in files.items()}
    usable = {"subject": "a", **paths, "label_convention": "auto", "warnings": []}
    assert checksums([usable, {"subject": "b", "t1": "nowhere", "fault": "is missing", "warnings": []}]) == {
        "a": {key: hashlib.sha256(key.encode()).hexdigest() for key in files}
    }
