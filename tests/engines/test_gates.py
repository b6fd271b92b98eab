"""Gates that are known, seen through the network, the inferer and the report."""

from __future__ import annotations

import math

import pytest
import torch

from bundle.engines.gates import GateMaps, GateReport, as_markdown, value_of_sources
from bundle.errors import InputError
from bundle.inferers.volume import VolumeInferer
from tests.engines.average import AverageNetwork
from tests.networks.models import CONTRASTS, tiny


def exam(presence: tuple[int, ...], size: int = 32) -> torch.Tensor:
    """(1, 8, size, size); the brain is the left half."""
    images = torch.rand(1, 4, size, size) + 0.1
    images[..., size // 2 :] = 0
    there = torch.tensor(presence, dtype=torch.float32).view(1, 4, 1, 1)
    return torch.cat([images * there, there.expand(1, 4, size, size)], dim=1)


def constant_gates(model, values=(0.5, -0.5, 1.0, 2.0)):
    """Gates that depend on the scale only, and not on what is seen: sigmoid(value)."""
    for mmsf, value in zip(model.disentanglement.mmsf, values):
        for layer in (mmsf.gate_own, mmsf.gate_context):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        torch.nn.init.constant_(mmsf.gate_own.bias, value)
    return [1 / (1 + math.exp(-value)) for value in values]


def test_report_tells_the_gates_of_each_subset_source_and_scale():
    model = tiny()
    expected = constant_gates(model)
    with torch.inference_mode(), GateReport(model) as gates:
        model(exam((1, 0, 1, 0)))
        model(torch.cat([exam((1, 0, 1, 0)), exam((0, 0, 0, 1))]))
    rows = gates.report()
    assert {(tuple(row["given"]), row["source"], row["scale"]) for row in rows} == {
        (given, source, scale)
        for given, source in ((("t1", "t2"), "t1"), (("t1", "t2"), "t2"), (("flair",), "flair"))
        for scale in (1, 2, 3, 4)
    }
    assert len(rows) == 12
    for row in rows:
        assert row["gate"] == pytest.approx(expected[row["scale"] - 1], abs=1e-6)


def test_gates_are_averaged_inside_the_brain_and_over_all_calls():
    model = tiny()
    seen = []
    for mmsf in model.disentanglement.mmsf:
        mmsf.register_forward_hook(lambda module, inputs, output: seen.append(output[1]))
    exams = [exam((1, 1, 0, 0)), exam((1, 1, 0, 0))]
    with torch.inference_mode(), GateReport(model) as gates:
        for x in exams:
            model(x)
    rows = {(row["source"], row["scale"]): row["gate"] for row in gates.report()}
    for scale in (1, 2, 3, 4):
        calls = seen[scale - 1], seen[scale + 3]
        half = calls[0].shape[-1] // 2
        for number, source in enumerate(("t1", "t1ce")):
            inside = torch.stack([call[number, 0, :, :half] for call in calls]).mean()
            assert rows[source, scale] == pytest.approx(inside.item(), abs=1e-5)
    everywhere = torch.stack([seen[0][0], seen[4][0]]).mean().item()
    assert abs(rows["t1", 1] - everywhere) > 1e-3  # the other half has other gates


def test_nothing_is_noted_after_the_report_or_without_gates():
    model = tiny()
    with torch.inference_mode():
        with GateReport(model) as gates:
            model(exam((1, 0, 0, 0)))
        before = gates.report()
        model(exam((0, 1, 0, 0)))
        assert gates.report() == before and len(before) == 4
        for network in (tiny(decoupled=False), AverageNetwork(CONTRASTS)):
            with GateReport(network) as gates:
                network(exam((1, 0, 1, 0)))
            assert gates.report() == []


def test_gate_maps_are_the_mean_of_the_scales_at_full_size():
    model = tiny()
    x = torch.cat([exam((1, 0, 1, 0)), exam((0, 0, 1, 1))])
    with torch.inference_mode():
        maps = GateMaps(model)(x)
        structure = model.disentanglement.encode_structure(x[:, :4], x[:, 4:, 0, 0])
    assert maps.shape == (2, 4, 32, 32) and maps.min() >= 0 and maps.max() <= 1
    # pairs, contrast by contrast: t1 of the first, t2 of both, flair of the second
    for pair, (sample, contrast) in enumerate([(0, 0), (0, 2), (1, 2), (1, 3)]):
        scales = [
            torch.nn.functional.interpolate(gate[pair][None], (32, 32), mode="bilinear") for gate in structure.gates
        ]
        torch.testing.assert_close(maps[sample, contrast], torch.stack(scales).mean(0)[0, 0])
    assert not maps[0, [1, 3]].any() and not maps[1, [0, 1]].any()


def test_a_volume_has_gates_where_there_is_brain():
    model = tiny()
    expected = sum(constant_gates(model)) / 4
    stack = torch.zeros(8, 32, 32, 6)
    stack[[0, 3], :, :, 2:5] = torch.rand(2, 32, 32, 3) + 0.1
    stack[[4, 7]] = 1
    volume = VolumeInferer(batch_size=2, num_contrasts=4)(stack[None], GateMaps(model))[0]
    assert volume.shape == (4, 32, 32, 6)
    torch.testing.assert_close(volume[[0, 3], :, :, 2:5], torch.full((2, 32, 32, 3), expected))
    assert not volume[[1, 2]].any() and not volume[..., [0, 1, 5]].any()
    with pytest.raises(InputError, match="AverageNetwork has no gates with these settings. Leave --gate_maps out"):
        GateMaps(AverageNetwork(CONTRASTS))


def test_gates_of_a_network_that_sees_neighbours():
    model = tiny(neighbours=1)
    around = torch.rand(1, 8, 32, 32)
    x = torch.cat([exam((1, 0, 1, 0)), around], dim=1)
    with torch.inference_mode(), GateReport(model) as gates:
        model(x)
        maps = GateMaps(model)(x)
        other = GateMaps(model)(torch.cat([x[:, :8], 1 - around], dim=1))
    assert len(gates.report()) == 8 and maps.shape == (1, 4, 32, 32)
    assert (maps - other)[:, [0, 2]].abs().max() > 1e-5 and not maps[:, [1, 3]].any()


def row(subject, given, target, psnr, method="network"):
    return {"subject": subject, "given": given.split(), "target": target, "method": method, "psnr": psnr}


ROWS = [
    row("a", "t1 t1ce t2", "flair", 30.0),
    row("a", "t1 t2", "flair", 29.0),
    row("a", "t1ce t2", "flair", 27.0),
    row("a", "t2", "flair", 25.0),
    row("a", "t1", "flair", 20.0),
    row("b", "t1 t2", "flair", 22.0),
    row("b", "t2", "flair", 23.0),
    row("b", "t1 t2", "t1ce", 19.0),
    row("a", "t2", "flair", 1.0, method="copy"),
]


def test_value_of_sources_by_hand():
    lost = value_of_sources(ROWS)
    # t1: subject a loses 30 - 27 and 29 - 25, subject b 22 - 23
    assert lost["flair"]["t1"] == pytest.approx(((3 + 4) / 2 - 1) / 2)
    # t2: subject a loses 29 - 20; its other sets were not evaluated without t2, nor was b's
    assert lost["flair"]["t2"] == pytest.approx(9)
    # t1ce: 30 - 29 and 27 - 25
    assert lost["flair"]["t1ce"] == pytest.approx(1.5)
    assert set(lost) == {"flair"}  # of t1ce one set only


def test_infinite_and_missing_values_do_not_count():
    rows = [row("a", "t1 t2", "flair", math.inf), row("a", "t2", "flair", 20.0)]
    assert value_of_sources(rows) == {} == value_of_sources([])
    assert value_of_sources([{**rows[0], "psnr": None}, rows[1]]) == {}  # as it is read back from results.json
    assert value_of_sources(ROWS, "ssim") == {}


def test_table():
    gates = [
        {"given": ["t1", "t2"], "source": "t1", "scale": 1, "gate": 0.2},
        {"given": ["t1", "t2"], "source": "t1", "scale": 2, "gate": 0.4},
        {"given": ["t1", "flair"], "source": "t1", "scale": 1, "gate": 0.6},
        {"given": ["t2"], "source": "t2", "scale": 1, "gate": 0.9},
    ]
    lines = as_markdown(gates, ROWS, CONTRASTS).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| source | gate, 1 given | gate, 2 given | lost for flair (dB) |"
    assert table[2:] == [
        "| t1 | - | 0.40 | +1.25 |",
        "| t1ce | - | - | +1.50 |",
        "| t2 | 0.90 | - | +9.00 |",
        "| flair | - | - | - |",
    ]
    assert "lost for flair (dB) |" in as_markdown([], ROWS, CONTRASTS) and as_markdown([], [], CONTRASTS) == ""
