"""Faults are told in one line, whatever they are wrapped in."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.errors import InputError, input_error_in

ROOT = Path(__file__).parents[1]


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from bundle.errors import *\nreport_plainly()\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_one_line_with_file_fault_and_remedy():
    assert str(InputError("is empty", "Copy it again", Path("a b/ü.nii"))) == "a b/ü.nii: is empty. Copy it again"
    assert str(InputError("no steps", "Give one")) == "no steps. Give one"
    assert "\n" not in str(InputError("two\nlines", "Give\none", "a\nb"))


def test_survives_pickling():
    error = pickle.loads(pickle.dumps(InputError("is empty", "Copy it again", "a.nii")))
    assert isinstance(error, InputError)
    assert str(error) == "a.nii: is empty. Copy it again"


def test_is_found_behind_what_it_was_wrapped_in():
    fault = InputError("f", "r")
    with pytest.raises(RuntimeError) as caught:
        try:
            try:
                raise fault
            except InputError as error:
                raise KeyError("inner") from error
        except KeyError:
            raise RuntimeError("outer")  # noqa: B904 (the implicit context is what is tested)
    assert input_error_in(caught.value) is fault
    assert input_error_in(ValueError("another")) is None
    assert input_error_in(None) is None


def test_a_chain_that_closes_on_itself_ends():
    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert input_error_in(one) is None


def test_wrapped_fault_is_one_line_on_stderr():
    ended = run("try:\n raise InputError('f', 'r', 'p')\nexcept InputError as e:\n raise RuntimeError('config') from e")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "error: p: f. r\n")


def test_other_errors_keep_their_traceback():
    ended = run("1 / 0")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "ZeroDivisionError" in ended.stderr


def test_ctrl_c_is_one_line_and_status_130():
    ended = run(f"import os\nos.kill(os.getpid(), {int(signal.SIGINT)})\nimport time\ntime.sleep(5)")
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
