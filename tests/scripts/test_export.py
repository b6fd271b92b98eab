"""The exported parts compute what the network computes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.errors import InputError
from bundle.networks.msg_ldm import MSGLDM
from scripts import export as script
from scripts.export import FORMATS, MeanPath, StructurePath, export, parts_of
from tests.conftest import ROOT
from tests.networks.models import tiny

PARTS = ("mean", "structure", "encoder", "denoiser", "decoder")
SIZE = 32
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx, onnxscript or onnxruntime is not installed: '.[export]'")


@pytest.fixture(scope="module")
def network() -> MSGLDM:
    """Two contrasts, with what training would have set."""
    torch.manual_seed(0)
    network = tiny(("t1", "flair"), channels=(4, 8, 8))
    network.disentanglement.style_bank.mean.normal_()
    network.latent_scale.fill_(1.7)
    return network


@pytest.fixture(scope="module")
def exported(network: MSGLDM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "parts"
    export(network, folder, SIZE, list(FORMATS) if HAS_ONNX else ["torchscript"], weights="abc")
    return folder


def exams(network: MSGLDM, *shape: int) -> torch.Tensor:
    """Random exams (B, C, H, W) with random subsets of contrasts; what lies in absent ones is not a number."""
    b, h, w = shape
    m = len(network.contrasts)
    exam = torch.rand(b, network.in_channels, h, w)
    presence = torch.rand(b, m) < 0.6
    presence[torch.arange(b), torch.randint(m, (b,))] = True
    around = 2 * m + network.region_channels
    for first in (0, *range(around, network.in_channels, m)):
        exam[:, first : first + m][~presence] = torch.nan
    exam[:, m : 2 * m] = presence[:, :, None, None].float()
    exam[:, 2 * m : around] = exam[:, 2 * m : around].round()
    return exam


@pytest.mark.parametrize(
    "switch",
    [
        *({}, {"shared": True}, {"skips": False}, {"hfib": False}, {"msse": False}),
        *({"fusion_norm": True}, {"region_mask": True}, {"decoupled": False}, {"neighbours": 1}),
        *({"neighbours": 2, "shared": True}, {"neighbours": 1, "region_mask": True}),
    ],
    ids=str,
)
def test_without_branches_the_network_does_the_same(switch: dict) -> None:
    network = tiny(**switch)
    network.disentanglement.style_bank.mean.normal_()
    for film in network.parameters():
        film.data += 0.05 * torch.randn_like(film)  # what starts at zero would hide a fault
    mean, structure = MeanPath(network).eval(), StructurePath(network).eval()
    exam = exams(network, 12, 48, 32)
    m = len(network.contrasts)
    with torch.no_grad():
        expected = network(exam)
        assert expected[:, :m][exam[:, m : 2 * m] == 0].std() > 0.01
        torch.testing.assert_close(mean(exam), expected, rtol=0, atol=1e-5)
        around = 2 * m + network.region_channels
        image = torch.cat([exam[:, :m], exam[:, around:]], dim=1).nan_to_num()
        presence = exam[:, m : 2 * m].amax((2, 3))
        region = exam[:, 2 * m : around] if network.region_mask else None
        fused = network.disentanglement.encode_structure(image, presence, region).fused
        torch.testing.assert_close(structure(exam), fused, rtol=0, atol=2e-5 * float(fused.abs().max()))


def test_what_is_exported_shares_nothing_with_the_network(network: MSGLDM) -> None:
    names = set(network.state_dict())
    path = MeanPath(network)
    assert path.disentanglement.encoders is not network.disentanglement.encoders
    assert set(network.state_dict()) == names and "disentanglement.segmentation.out.weight" in names
    assert not [name for name in path.state_dict() if "segmentation" in name or "style_encoders" in name]


def test_every_part_is_written_and_recorded(exported: Path, network: MSGLDM) -> None:
    formats = list(FORMATS) if HAS_ONNX else ["torchscript"]
    files = {f"{part}{FORMATS[form]}" for part in PARTS for form in formats}
    assert {path.name for path in exported.iterdir()} == {*files, "export.json"}
    record = json.loads((exported / "export.json").read_text())
    assert record["contrasts"] == ["t1", "flair"] and record["size"] == SIZE and record["weights_sha256"] == "abc"
    assert np.array_equal(np.float32(record["alphas_cumprod"]), network.alphas_cumprod.numpy())
    assert record["largest_difference"].keys() == set(PARTS)
    for found in record["largest_difference"].values():
        assert list(found) == formats and all(value <= 1e-4 for value in found.values())


@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 32, 32), (3, 64, 48)])
def test_torchscript_takes_any_batch_and_side(shape: tuple[int, int, int], exported: Path, network: MSGLDM) -> None:
    exam = exams(network, *shape)
    with torch.no_grad():
        made = torch.jit.load(exported / "mean.ts")(exam)
        torch.testing.assert_close(made, network(exam), rtol=0, atol=1e-5)


def test_a_part_holds_no_other_weights(exported: Path, network: MSGLDM) -> None:
    sizes = {part: sum(p.numel() for p in torch.jit.load(exported / f"{part}.ts").parameters()) for part in PARTS}
    autoencoder = sum(p.numel() for p in network.autoencoder.parameters())
    assert sizes["encoder"] + sizes["decoder"] < autoencoder  # the posterior's width is not needed
    assert sizes["denoiser"] == sum(p.numel() for p in network.diffusion.parameters())
    assert sizes["structure"] < sizes["mean"] < sum(p.numel() for p in network.disentanglement.parameters())


@needs_onnx
@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_takes_any_batch(batch: int, exported: Path, network: MSGLDM) -> None:
    exam = exams(network, batch, SIZE, SIZE)
    made = script.run_onnx(exported / "mean.onnx")(exam=exam)
    with torch.no_grad():
        torch.testing.assert_close(made, network(exam), rtol=0, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize(("steps", "level"), [(1, 0.05), (4, 0.3)])
def test_the_loop_of_the_documentation_makes_the_networks_sample(
    steps: int, level: float, exported: Path, network: MSGLDM, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    assert 'FOLDER = "export"' in example
    found: dict = {}
    exec(example.replace('FOLDER = "export"', f"FOLDER = {str(exported)!r}"), found)
    exam = exams(network, 3, SIZE, SIZE)
    exam[:, :2] = torch.rand(3, 2, SIZE, SIZE)
    exam[:, 2], exam[:, 3] = 1, 0  # T1 alone is there
    for name, value in {"mode": "sample", "num_steps": steps, "start_level": level, "seed": 4}.items():
        monkeypatch.setattr(network, name, value)
    with torch.no_grad():
        expected = network(exam)[:, 1]
        mean = script.MeanPath(network)(exam)[:, 1]
    noise = torch.randn(1, 3, SIZE // 4, SIZE // 4, generator=torch.Generator().manual_seed(4))
    made = torch.from_numpy(found["sample"](exam.numpy(), 1, noise.numpy(), steps, level))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
    assert (made - mean).abs().mean() > 0.01  # a sample, not its start


def test_a_wrong_part_is_refused_and_nothing_is_left(
    network: MSGLDM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(network: MSGLDM, size: int) -> list:
        encoder = parts_of(network, size)[2]
        return [replace(encoder, reference=lambda image: network.encode(image) + 2e-4)]

    monkeypatch.setattr(script, "parts_of", faulty)
    with pytest.raises(ArithmeticError, match=r"^encoder\.ts differs from PyTorch by 2\.0e-04, more than 1e-04\.$"):
        export(network, tmp_path / "out", SIZE, ["torchscript"])
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_no_agreement(network: MSGLDM) -> None:
    part = replace(parts_of(network, SIZE)[2], reference=lambda image: network.encode(image) * torch.nan)
    with pytest.raises(ArithmeticError, match="differs from PyTorch by nan"):
        script.close(part, part.module, "encoder.ts", 1e-4)


@pytest.mark.parametrize("size", [0, 16, 40])
def test_a_side_that_cannot_be_halved_is_refused(size: int, network: MSGLDM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^size is {size}\. Use --size with a multiple of 16 from 32 on$"):
        export(network, tmp_path / "out", size, ["torchscript"])


def test_missing_packages_are_told(network: MSGLDM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"^not installed: onnxscript\. Install them: pip install -e '\.\[export\]'"):
        export(network, tmp_path / "out", SIZE, ["onnx"])


@needs_onnx
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tensorrt_is_not_quietly_replaced_by_the_cpu(exported: Path) -> None:
    with pytest.raises(InputError, match=r"^this onnxruntime has no TensorrtExecutionProvider\. "):
        script.run_tensorrt(exported / "mean.onnx")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"configs/{name}.json") for name in ("inference", "tiny")])
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


TINY = ["--config_file", str(ROOT / "configs/inference.json"), str(ROOT / "configs/tiny.json"), "--size", "64"]


def test_the_command(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the command replaces
    options = ["--weights", str(weights), "--output_dir", str(tmp_path / "out"), "--formats", "torchscript"]
    script.main([*TINY, *options])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{part}.ts" for part in PARTS]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*(f"{part}.ts" for part in PARTS), "export.json"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--weights", "nowhere.pt"], "nowhere.pt: the file with the network's weights is missing. "),
        (["--config_file", "nowhere.json"], "nowhere.json: the config is missing. Name configs/inference.json"),
        (["--tensorrt", "--formats", "torchscript"], "--tensorrt builds on the ONNX files. Add onnx to --formats"),
        (
            [
                "--config_file",
                *(str(ROOT / f"configs/{name}.json") for name in ("inference", "baselines/unet_network")),
            ],
            f"{ROOT}/configs/baselines/unet_network.json: its network is of type Generator. Give the config of",
        ),
    ],
    ids=["weights", "config", "tensorrt", "network"],
)
def test_faults_are_told_in_a_line(
    options: list[str], line: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        script.main([*TINY, "--weights", str(weights), *options])
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
