"""The real server, driven over REST as a client drives it."""

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: run make test-label")

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import requests  # noqa: E402
import torch  # noqa: E402
from monailabel.client import MONAILabelClient  # noqa: E402

from bundle.data.discovery import find_subjects  # noqa: E402
from tests.label.conftest import AFFINE, CONFIGS, CONTRASTS, ROOT, SHAPE  # noqa: E402
from tests.phantom import write_subject  # noqa: E402


@pytest.fixture
def exam(studies, request):
    """A new exam with T1 and T2, to spoil: its folder."""
    name = f"case{sum(1 for _ in studies.iterdir())}"
    write_subject(studies / name, ["t1", "t2"], SHAPE, AFFINE)
    return studies / name


def volume(content):
    """A NIfTI image from the bytes of a .nii.gz file."""
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_what_a_client_may_choose(server):
    model = server("GET", "/info/").json()["models"]["synthesis"]
    assert model["type"] == "others" and model["labels"] == []
    assert model["config"] == {
        "target": ["first missing", *CONTRASTS],
        "mode": ["mean", "sample"],
        "mirrored": False,
        "three_planes": False,
        "num_samples": 1,
        "num_steps": 2,
        "seed": 0,
    }


def test_the_volume_is_that_of_the_inference_command(server, studies, weights, tmp_path):
    scans = find_subjects(studies, CONTRASTS)
    answer = server.infer("thick/thick_t2", output="image")
    assert answer.status_code == 200, answer.text
    made = volume(answer.content)
    assert 'filename="thick_t1ce_synth.nii.gz"' in answer.headers["content-disposition"]

    shutil.copytree(studies / "thick", tmp_path / "in" / "thick", ignore=shutil.ignore_patterns("*_synth*"))
    command = [*(sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(CONFIGS))]
    command += ["--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--weights", str(weights)]
    subprocess.run([*command, "--targets", "['t1ce']"], cwd=ROOT, check=True, timeout=300)
    wanted = nib.load(tmp_path / "out" / "thick" / "thick_t1ce_synth.nii.gz")
    given = nib.load(studies / "thick" / "thick_t1.nii.gz")
    assert made.get_data_dtype() == np.float32 and made.shape == given.shape == (35, 45, 8)
    assert np.array_equal(made.affine, given.affine)
    assert made.header["sform_code"] == made.header["qform_code"] == 1
    assert np.array_equal(made.get_fdata(), wanted.get_fdata())
    assert np.ptp(made.get_fdata()) > 0.01

    kept = studies / "thick" / "thick_t1ce_synth.nii.gz"
    assert kept.read_bytes() == answer.content  # still there, although the server removes what it has sent
    assert server("GET", "/datastore/image", params={"image": "thick/thick_t1ce_synth"}).content == answer.content
    info = server("GET", "/datastore/image/info", params={"image": "thick/thick_t1ce_synth"}).json()
    assert info["synthetic"] is True and info["targets"] == ["t1ce"]
    assert "thick/thick_t1ce_synth" in server("GET", "/datastore/", params={"output": "all"}).json()["objects"]
    assert find_subjects(studies, CONTRASTS) == scans


def test_a_synthetic_volume_is_never_input(server, exam):
    first = server.infer(f"{exam.name}/{exam.name}_t1").json()
    assert first["image"] == f"{exam.name}/{exam.name}_t1ce_synth" and first["targets"] == ["t1ce"]
    assert first["inputs"] == {name: f"{exam.name}/{exam.name}_{name}.nii.gz" for name in ("t1", "t2")}
    again = server.infer(f"{exam.name}/{exam.name}_t1", target="flair").json()
    assert again["inputs"] == first["inputs"] and again["targets"] == ["flair"]
    assert server.infer(f"{exam.name}/{exam.name}_t1").json()["targets"] == ["t1ce"]  # it is missing as before
    refused = server.infer(first["image"])
    assert refused.status_code == 422 and refused.json()["detail"].startswith(
        f"{exam.name}/{exam.name}_t1ce_synth.nii.gz: is synthetic"
    )
    images = server("GET", "/datastore/", params={"output": "all"}).json()["objects"]
    measured = {image for image in images if not image.endswith("_synth")}
    offered = {server("POST", "/activelearning/random", json={}).json()["id"] for _ in measured}
    assert offered == measured  # MONAI Label prefers what it has not offered yet


def test_what_exists_is_hidden_where_it_is_the_target(server, studies):
    before = (studies / "whole" / "whole_t2.nii.gz").read_bytes()
    report = server.infer("whole/whole_t2", target="t2").json()
    assert list(report["inputs"]) == ["t1", "t1ce", "flair"] and report["image"] == "whole/whole_t2_synth"
    assert (studies / "whole" / "whole_t2.nii.gz").read_bytes() == before


def test_samples_and_their_deviation(server, exam):
    """As from a table of options: lists that nobody chose from, numbers as text."""
    choices = {"mode": ["sample", "mean"], "num_samples": "2", "seed": "3", "target": ["flair", "t1ce"]}
    choices["mirrored"] = choices["three_planes"] = True
    report = server.infer(f"{exam.name}/{exam.name}_t1", **choices).json()
    assert (report["mode"], report["num_samples"], report["seed"], report["targets"]) == ("sample", 2, 3, ["flair"])
    assert report["mirrored"] is report["three_planes"] is True
    deviation = server("GET", "/datastore/image", params={"image": report["uncertainty"]})
    assert report["uncertainty"] == f"{exam.name}/{exam.name}_flair_uncertainty"
    assert volume(deviation.content).get_fdata().max() > 0
    other = server.infer(f"{exam.name}/{exam.name}_t1", output="image", **{**choices, "seed": 4}).content
    assert not np.array_equal(volume(other).get_fdata(), nib.load(exam / f"{exam.name}_t1.nii.gz").get_fdata())
    assert server("GET", "/datastore/image", params={"image": report["image"]}).content == other


def test_flat_files(server, studies):
    report = server.infer("ana_flair").json()
    assert report["subject"] == "ana" and report["image"] == "ana_t1ce_synth"
    assert (studies / "ana_t1ce_synth.nii.gz").is_file()
    assert any("no real uptake" in line for line in report["warnings"])


def test_monai_labels_own_client(server, exam):
    client = MONAILabelClient(server.url)
    file, report = client.infer("synthesis", f"{exam.name}/{exam.name}_t1", {"target": "t1ce"})
    assert report["image"] == f"{exam.name}/{exam.name}_t1ce_synth"
    assert np.array_equal(nib.load(file).affine, AFFINE) and nib.load(file).shape == SHAPE
    Path(file).unlink()
    assert client.next_sample("first", {})["id"] in client.datastore()["objects"]
    assert client.auth_enabled() is False


@pytest.mark.parametrize(
    ("image", "options", "status", "line"),
    [
        ("whole/whole_t1", {}, 409, "whole: nothing is missing of t1, t1ce, t2, flair. Name a target to make it"),
        ("four/four_t1", {}, 422, "four/four_t1.nii.gz: is 4-D (32 x 42 x 27 x 2). Split it"),
        ("four/four_t2", {}, 422, "four/four_t1.nii.gz: is 4-D (32 x 42 x 27 x 2). Split it"),
        ("nobody_t1", {}, 404, "nobody_t1: is no image of the studies folder. "),
        ("../outside/outside_t1", {}, 403, "../outside/outside_t1: is not in the studies folder. "),
        ("{outside}/outside_t1.nii.gz", {}, 403, "outside_t1.nii.gz: is not in the studies folder. "),
        ("/etc/passwd", {}, 403, "/etc/passwd: is not in the studies folder. "),
        ("away_t1", {}, 403, "away_t1.nii.gz: is not in the studies folder. "),
        ("linked/linked_t1", {}, 403, "linked/linked_t2.nii.gz: is a link that leads out of the studies folder. "),
        ("picture", {}, 422, "picture.nii.gz: is none of t1, t1ce, t2, flair by its name. "),
        ("ana_t1", {"image": "/etc/passwd"}, 403, "/etc/passwd: is not in the studies folder. "),
        ("ana_t1", {"image": ["ana_t1"]}, 422, "image is ['ana_t1']. "),
        ("ana_t1", {"model": "other"}, 404, "there is no model 'other'. Use synthesis"),
        ("ana_t1", {"target": "t7"}, 422, "target 't7' is unknown. Use one of first missing, t1, t1ce, t2, flair"),
        ("ana_t1", {"target": "$print(1)"}, 422, "target '$print(1)' is unknown. "),
        ("ana_t1", {"mode": "best"}, 422, "mode 'best' is unknown. "),
        ("ana_t1", {"num_samples": 0}, 422, "num_samples is 0. "),
        ("ana_t1", {"num_steps": "many"}, 422, "num_steps is 'many'. "),
    ],
)
def test_requests_that_are_refused(server, studies, image, options, status, line):
    answer = server.infer(image.format(outside=studies.parent / "outside"), **options)
    text = answer.json()["detail"]
    assert (answer.status_code, line in text) == (status, True), text
    assert "\n" not in text and f"{studies}/" not in text


def test_other_faulty_requests(server):
    label = {"files": {"label": ("l.nii.gz", b"x")}}
    for method, path, rest, status, line in [
        ("POST", "/infer/synthesis?image=ana_t1", {"data": {"params": "{target"}}, 400, "params are no JSON ("),
        ("POST", "/infer/other?image=ana_t1", {}, 404, "there is no model 'other'. Use synthesis"),
        ("GET", "/datastore/image?image=nobody", {}, 404, "Image NOT Found"),
        ("GET", "/datastore/image/info?image=nobody", {}, 404, "Image nobody not found"),
        ("GET", "/datastore/label?label=ana_t1&tag=final", {}, 404, "Label NOT Found"),
        ("DELETE", "/datastore/image?id=nobody", {}, 404, "Image nobody not found"),
        ("PUT", "/datastore/label?image=nobody", label, 404, "Image nobody not found"),
        ("PUT", "/datastore/label?image=ana_t1&tag=../../x", label, 422, "the tag"),
        ("POST", "/activelearning/best", {"json": {}}, 400, "There is no such strategy 'best' available"),
        ("GET", "/logs/", {}, 404, "Not Found"),
    ]:  # fmt: skip
        answer = server(method, path, **rest)
        assert (answer.status_code, line in answer.json()["detail"]) == (status, True), (path, answer.text)


@pytest.mark.parametrize(
    "image",
    [
        "../outside/outside_t1",
        "%2e%2e%2foutside%2Foutside_t1",
        "linked/..%2F../outside/outside_t1.nii.gz",
        "%2Fetc%2Fpasswd",
        "../nowhere",
        "ana_t1%00",
        "away_t1",
        "away%5Ft1.nii.gz",
        "linked/linked_t2",
        "link_of_folder/outside_t1",
    ],
)
def test_nothing_outside_of_the_folder(server, studies, image):
    """However it is written, and whatever is asked of it; as sent, requests would tidy up the address."""
    link = studies / "link_of_folder"
    link.is_symlink() or link.symlink_to(studies.parent / "outside")
    label = {"files": {"label": ("l.nii.gz", b"x")}}
    for method, address, rest in [
        ("POST", f"/infer/synthesis?image={image}&output=json", {}),
        ("GET", f"/datastore/image?image={image}", {}),
        ("HEAD", f"/datastore/image?image={image}", {}),
        ("GET", f"/datastore/image/info?image={image}", {}),
        ("PUT", f"/datastore/image/info?image={image}", {"data": {"info": "{}"}}),
        ("PUT", f"/datastore/image?image={image}", {"files": {"file": ("any.nii.gz", b"x")}}),
        ("DELETE", f"/datastore/image?id={image}", {}),
        ("PUT", f"/datastore/label?image={image}", label),
        ("GET", f"/datastore/label?label={image}&tag=final", {}),
    ]:
        request = requests.Request(method, server.url, **rest).prepare()
        request.url = server.url + address
        answer = requests.Session().send(request, timeout=120)
        assert answer.status_code == 403, (method, address, answer.text)
    double = server("GET", "/datastore/image?image=%252e%252e/outside/outside_t1")  # a name with % in it, and no image
    assert double.status_code == 404


def test_uploads(server, studies):
    file = (studies / "ana_t1.nii.gz").read_bytes()

    def put(image, content=file, name="any.nii.gz"):
        answer = server("PUT", "/datastore/image", params={"image": image}, files={"file": (name, content)})
        return answer.status_code, answer.json()

    for image in ("sent/sent_t1", "sent/sent_t2"):
        assert put(image) == (200, {"image": image})
    report = server.infer("sent/sent_t1").json()
    assert list(report["inputs"]) == ["t1", "t2"] and report["image"] == "sent/sent_t1ce_synth"
    for status, line, answer in [
        (409, "sent/sent_t1: is there already. ", put("sent/sent_t1")),
        (409, "sent/sent_t1ce_synth: is there already. ", put("sent/sent_t1ce_synth")),
        (422, "x_t1: is 4-D (32 x 42 x 27 x 2). ", put("x_t1", (studies / "four" / "four_t1.nii.gz").read_bytes())),
        (422, "x_t1: is truncated: ", put("x_t1", gzip.compress(gzip.decompress(file)[:-9]))),
        (422, "x_t1: is no gzip file ", put("x_t1", b"MZ, a program")),
        (415, "x_t1: is no NIfTI file by its name. ", put("x_t1", name="x.exe")),
        (403, "../outside/x_t1: is not in the studies folder. ", put("../outside/x_t1")),
        (403, ".labels/x_t1: is hidden. ", put(".labels/x_t1")),
    ]:
        assert (answer[0], line in answer[1]["detail"]) == (status, True), answer
    assert not list(studies.parent.rglob("*x_t1*"))


def test_a_scan_sent_with_the_request(server, studies):
    with (studies / "ana_t1.nii.gz").open("rb") as file:
        answer = server("POST", "/infer/synthesis", files={"file": ("ana_t1.nii.gz", file)})
    assert answer.status_code == 422 and "Upload the exam's scans with PUT /datastore/image?image=ID" in answer.text


def test_names_are_not_run(server, studies):
    """MONAI's config language runs text that begins with $; a client chooses the names of what it uploads."""
    name = "$open('run','w')"
    file = {"file": ("any.nii.gz", (studies / "ana_t1.nii.gz").read_bytes())}
    server("PUT", "/datastore/image", params={"image": f"{name}_t1"}, files=file).raise_for_status()
    report = server.infer(f"{name}_t1").json()
    # a subject is called by the words of its files' names; run- numbers a repetition and is no part of it
    assert report["subject"] == "open_w" and report["image"] == "open_w_t1ce_synth"
    assert not (ROOT / "run").exists()


def test_the_scans_are_as_they_were(server, studies, tmp_path):
    """After all of the above."""
    from tests.label.conftest import write_exams

    write_exams(tmp_path / "studies", tmp_path / "outside")
    for path in [*(tmp_path / "studies").rglob("*.nii.gz"), *(tmp_path / "outside").iterdir()]:
        there = studies.parent / path.relative_to(tmp_path)
        assert np.array_equal(nib.load(there).get_fdata(), nib.load(path).get_fdata())
    assert sorted(path.name for path in studies.parent.iterdir()) == ["outside", "studies"]
    assert len(list((studies.parent / "outside").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{folder}/nowhere"], "error: {folder}/nowhere: is no folder. "),
        (
            ["{folder}", "--weights", "nowhere.pt"],
            "error: nowhere.pt: the file with the network's weights is missing. ",
        ),
        (["{folder}", "--weights", "{folder}/other.pt"], "other.pt: the weights are of another architecture ("),
    ],
)
def test_faults_at_the_start_are_one_line(tmp_path, arguments, line):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    command = [sys.executable, "-m", "scripts.monai_label.start", *(text.format(folder=tmp_path) for text in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert line.format(folder=tmp_path) in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def examples(language):
    """The examples of the documentation in one language."""
    text = (ROOT / "docs" / "monai_label.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_the_examples_for_curl(server, studies, tmp_path):
    write_subject(studies / "sub-001", ["t1", "t2"], SHAPE, AFFINE)
    shutil.copy(studies / "ana_t1.nii.gz", tmp_path / "my_scan.nii.gz")
    commands = "".join(examples("sh")).replace("http://127.0.0.1:8000", server.url).replace("curl ", "curl -fsS ")
    subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, check=True, timeout=300)
    assert nib.load(tmp_path / "sub-001_flair_synth.nii.gz").shape == SHAPE
    assert (studies / "sub-002" / "sub-002_t1.nii.gz").is_file()


def test_the_example_for_slicer(server, studies, tmp_path, monkeypatch):
    """With stand-ins for the two things of Slicer's that it uses."""
    write_subject(studies / "sub-001", ["t1", "t2"], SHAPE, AFFINE)
    loaded = {}
    util = SimpleNamespace(loadVolume=lambda file, properties: loaded.update({properties["name"]: nib.load(file)}))
    slicer = SimpleNamespace(util=util, app=SimpleNamespace(temporaryPath=str(tmp_path)))
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    (code,) = examples("python")
    exec(compile(code.replace("http://127.0.0.1:8000", server.url), "slicer", "exec"), {"slicer": slicer})
    assert list(loaded) == ["sub-001_flair_synth"] and np.array_equal(loaded["sub-001_flair_synth"].affine, AFFINE)
