"""Properties of the whole model: nothing of a hidden contrast leaks, and any subset of any set of contrasts works."""

from __future__ import annotations

import math

import pytest
import torch

from bundle.networks.msg_ldm import MSGLDM
from bundle.transforms.hide import subsets
from tests.networks.models import tiny

MODES = ("mean", "sample")


def exam(presence: tuple[int, ...], size: int = 32) -> torch.Tensor:
    """A random exam with its presence maps, (1, 2M, size, size); missing contrasts hold noise too."""
    m = len(presence)
    maps = torch.tensor(presence, dtype=torch.float32).view(1, m, 1, 1).expand(1, m, size, size)
    return torch.cat([torch.rand(1, m, size, size), maps], dim=1)


def run(model: MSGLDM, x: torch.Tensor, mode: str) -> torch.Tensor:
    model.mode = mode
    with torch.inference_mode():
        return model(x)


@pytest.mark.parametrize("presence", subsets(4))
def test_every_subset_is_completed_and_what_was_there_is_kept(presence: tuple[int, ...]) -> None:
    x, model = exam(presence), tiny()
    for mode in MODES:
        y = run(model, x, mode)
        assert y.shape == (1, 4, 32, 32) and torch.isfinite(y).all() and y.min() >= 0 and y.max() <= 1
        for j, there in enumerate(presence):
            assert torch.equal(y[0, j], x[0, j]) == bool(there)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shared", [False, True])
def test_no_bit_changes_when_a_hidden_image_changes(mode: str, shared: bool) -> None:
    model, x = tiny(shared=shared), exam((1, 0, 1, 0))
    before = run(model, x, mode)
    x[:, [1, 3]] = torch.rand(1, 2, 32, 32) * 100
    x[:, 1, 0, 0] = float("nan")
    assert torch.equal(run(model, x, mode), before)


def test_in_training_no_style_of_a_hidden_image_reaches_a_reconstruction() -> None:
    model = tiny().disentanglement.train()
    model.style_bank.momentum = 0.0
    image, presence = torch.rand(2, 4, 32, 32), torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    before = model(image, presence, torch.ones(2, 4))
    hidden = torch.where(presence.bool()[:, :, None, None], image, torch.rand_like(image))
    after = model(hidden, presence, torch.ones(2, 4))
    for key in ("reconstruction", "segmentation", "style"):
        assert torch.equal(before[key], after[key]), key
    assert (before["style"][presence == 0] == 0).all()


def test_only_what_is_labelled_is_segmented() -> None:
    model, seen = tiny().disentanglement.train(), []
    model.segmentation.register_forward_hook(lambda _, __, logits: seen.append(len(logits)))
    image, presence = torch.rand(3, 4, 32, 32), torch.tensor([[1.0, 0, 1, 0]]).expand(3, -1)
    nothing = torch.zeros(3, 4)
    whole = model(image, presence, nothing)["segmentation"]
    some = model(image, presence, nothing, labelled=torch.tensor([1.0, 0, 1]))["segmentation"]
    torch.testing.assert_close(some[[0, 2]], whole[[0, 2]], atol=1e-5, rtol=1e-4)
    assert not some[1].any() and seen == [3, 2]
    none = model(image, presence, nothing, labelled=torch.zeros(3))["segmentation"]
    none.sum().backward()  # a batch that asks for nothing is no error
    assert not none.any() and seen == [3, 2] and model.segmentation.out.weight.grad is None


@pytest.mark.parametrize("shared", [False, True])
def test_permuting_the_contrasts_permutes_the_result(shared: bool) -> None:
    order = [2, 0, 3, 1]
    model, x = tiny(shared=shared), exam((1, 0, 1, 1))
    with torch.no_grad():
        model.disentanglement.style_bank.mean.normal_()
        for film in model.disentanglement.encoders.encoders[0].film or ():
            film.normal_()
    expected = run(model, x, "mean")[:, order]
    d = model.disentanglement
    for modules in (d.style_encoders, d.decoders) if shared else (d.encoders.encoders, d.style_encoders, d.decoders):
        for place, module in enumerate([modules[j] for j in order]):
            modules[place] = module
    with torch.no_grad():
        d.style_bank.mean.copy_(d.style_bank.mean[order].clone())
        for film in d.encoders.encoders[0].film or ():
            film.copy_(film[order].clone())
    permuted = run(model, x[:, [*order, *(4 + j for j in order)]], "mean")
    torch.testing.assert_close(permuted, expected, atol=1e-5, rtol=1e-4)


def test_a_given_style_does_reach_the_reconstruction_of_its_own_contrast_only() -> None:
    model = tiny()
    with torch.no_grad():
        before = run(model, x := exam((1, 0, 0, 1)), "mean")
        model.disentanglement.style_bank.mean[1] += 3.0
    after = run(model, x, "mean")
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-3
    assert torch.equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])


@pytest.mark.parametrize("contrasts", [("t1", "flair"), ("t1", "t1ce", "t2", "flair", "pd", "swi")])
def test_any_number_of_contrasts(contrasts: tuple[str, ...]) -> None:
    presence = (1, *(0,) * (len(contrasts) - 1))
    assert run(tiny(contrasts), exam(presence), "sample").shape == (1, len(contrasts), 32, 32)


def test_the_shared_encoder_grows_only_by_its_affine_per_contrast() -> None:
    models = {m: tiny(tuple("abcdef"[:m]), shared=True) for m in (2, 6)}
    sizes = {m: sum(p.numel() for p in model.disentanglement.encoders.parameters()) for m, model in models.items()}
    assert sizes[6] - sizes[2] == 4 * 2 * (4 + 8 + 8 + 16)


def test_only_the_targets_are_made() -> None:
    model = tiny()
    model.targets = (3,)
    y = run(model, exam((1, 0, 1, 0)), "mean")
    assert y[0, 1].abs().max() == 0 and y[0, 3].abs().max() > 0


def test_a_seed_decides_the_sample_and_the_slices_share_their_noise() -> None:
    model, one = tiny(), exam((1, 0, 1, 1))
    both = run(model, one.expand(2, -1, -1, -1), "sample")
    torch.testing.assert_close(both[0], both[1], atol=1e-6, rtol=0)
    assert torch.equal(run(model, one, "sample"), run(model, one, "sample"))
    model.seed = 1
    assert (run(model, one, "sample")[:, 1] - both[:1, 1]).abs().max() > 1e-3


def test_with_noise_of_its_own_a_slice_is_the_same_in_any_batch() -> None:
    model, one = tiny(), exam((1, 0, 1, 1))
    shared = run(model, one, "sample")
    model.noise_depth = 1
    three = run(model, one.expand(3, -1, -1, -1), "sample")
    torch.testing.assert_close(three[:1], shared, atol=1e-5, rtol=0)  # both are the first draw
    assert (three[1] - three[0])[1].abs().max() > 1e-3 and (three[2] - three[1])[1].abs().max() > 1e-3
    with torch.no_grad():
        two = model(one.expand(2, -1, -1, -1), positions=torch.tensor([2, 0]))
    torch.testing.assert_close(two, three[[2, 0]], atol=1e-5, rtol=0)


def test_noise_becomes_another_within_its_depth() -> None:
    model, like = tiny(), torch.zeros(13, 8, 40, 40)
    draws = torch.Generator().manual_seed(0)
    first, second = (torch.randn(like.shape[1:], generator=draws) for _ in range(2))
    assert torch.equal(model._noise(like, None), first.expand_as(like))
    model.noise_depth = 4
    noise = model._noise(like, None)
    assert torch.equal(noise[0], first) and torch.allclose(noise[4], second, atol=1e-6)
    assert torch.allclose(noise[2], (first + second) / 2**0.5, atol=1e-6)
    assert (noise.std((1, 2, 3)) - 1).abs().max() < 0.03
    alike = torch.corrcoef(noise.flatten(1))
    for k in range(9):  # the cosine of the part of a right angle that lies between two slices
        assert alike[0, k] == pytest.approx(max(0, math.cos(k / 4 * math.pi / 2)), abs=0.03)
    assert torch.equal(model._noise(like[:2], torch.tensor([7, 2])), noise[[7, 2]])


@pytest.mark.parametrize("settings", [{}, {"shared": True}, {"decoupled": False}, {"region_mask": True}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_neighbours_are_seen_of_what_is_there_and_never_of_what_is_missing(
    mode: str, settings: dict[str, bool]
) -> None:
    model = tiny(neighbours=1, **settings)
    x = torch.cat([exam((1, 0, 1, 0)), torch.zeros(1, model.region_channels, 32, 32), torch.rand(1, 8, 32, 32)], 1)
    assert x.shape[1] == model.in_channels
    before, around = run(model, x, mode), x.shape[1] - 8
    assert torch.equal(before[:, [0, 2]], x[:, [0, 2]])
    missing = x.clone()
    missing[:, [around + 1, around + 3, around + 5, around + 7]] = float("nan")
    assert torch.equal(run(model, missing, mode), before)
    for channel in (around, around + 2, around + 4, around + 6):  # t1 and t2, below and above
        other = x.clone()
        other[:, channel] = 1 - other[:, channel]
        assert (run(model, other, mode) - before)[:, [1, 3]].abs().max() > 1e-5


def test_without_neighbours_the_weights_are_those_of_the_network_without_the_switch() -> None:
    shapes = {name: tensor.shape for name, tensor in tiny().state_dict().items()}
    assert {name: tensor.shape for name, tensor in tiny(neighbours=0).state_dict().items()} == shapes
    wider = {name: tensor.shape for name, tensor in tiny(neighbours=1).state_dict().items()}
    changed = {name for name in shapes if wider[name] != shapes[name]}
    assert changed and all(name.startswith("disentanglement.encoders.encoders.") for name in changed)
    assert {wider[name][1] for name in changed} == {3}
    for wrong in (-1, 0.5, "1"):
        with pytest.raises(ValueError, match="must be a whole number of slices, 0 or more"):
            tiny(neighbours=wrong)


def test_a_sample_starts_from_the_reconstruction_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = tiny(), exam((1, 0, 1, 0))
    model.mode, model.seed, given = "sample", 1, torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain = model(x)
        own = model.disentanglement.reconstruct_unseen(
            model.disentanglement.encode_structure(x[:, :4], x[:, 4:, 0, 0]), torch.tensor([[0.0, 1, 0, 1]])
        )
        torch.testing.assert_close(model(x, made=own.clamp(0, 1)), plain)
        other = model(x, made=given)
        assert (other - plain)[:, [1, 3]].abs().max() > 1e-3 and torch.equal(other[:, [0, 2]], x[:, [0, 2]])
        monkeypatch.setattr(model, "sample", lambda image, presence, wanted, structure, made, positions: made)
        assert torch.equal(model(x, made=given)[:, [1, 3]], given[:, [1, 3]])


def test_a_region_mask_changes_the_result_and_its_absence_changes_nothing() -> None:
    model = tiny(region_mask=True)
    x, mask = exam((1, 0, 1, 1)), torch.rand(1, 3, 32, 32)
    given, withheld = torch.ones(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    without = run(model, torch.cat([x, torch.zeros_like(mask), withheld], 1), "mean")
    assert torch.equal(run(model, torch.cat([x, mask, withheld], 1), "mean"), without)
    assert (run(model, torch.cat([x, mask, given], 1), "mean") - without)[:, 1].abs().max() > 1e-4
    with pytest.raises(ValueError, match="made without a region mask"):
        tiny().disentanglement.encode_structure(x[:, :4], x[:, 4:, 0, 0], torch.cat([mask, given], 1))


def test_odd_sizes_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="36x36 cannot be halved 3 times; pad both sides to multiples of 8"):
        run(tiny(), exam((1, 0, 1, 1), size=36), "mean")


def test_wrong_channels_modes_and_an_empty_exam_are_refused() -> None:
    with pytest.raises(ValueError, match="x: 4 channels"):
        run(tiny(), torch.rand(1, 4, 32, 32), "mean")
    with pytest.raises(ValueError, match="no contrast at all"):
        run(tiny(), exam((0, 0, 0, 0)), "mean")
    with pytest.raises(ValueError, match="mode: 'median'"):
        run(tiny(), exam((1, 0, 0, 0)), "median")


@pytest.mark.parametrize("switch", [{"skips": False}, {"hfib": False}, {"msse": False}])
def test_each_switch_of_the_ablations_takes_effect(switch: dict[str, bool]) -> None:
    torch.manual_seed(1)
    full = sum(p.numel() for p in tiny().parameters())
    model = tiny(**switch)
    y = run(model, exam((1, 0, 1, 1)), "mean")
    assert torch.isfinite(y).all()
    if "skips" not in switch:
        assert sum(p.numel() for p in model.parameters()) < full
    else:
        structure = model.disentanglement.encode_structure(torch.rand(1, 4, 32, 32), torch.ones(1, 4))
        style, wanted = torch.zeros(1, 4, 4), torch.ones(1, 4)
        before = model.disentanglement.reconstruct(structure, style, wanted)
        structure.scales[0] = torch.zeros_like(structure.scales[0])
        assert torch.equal(model.disentanglement.reconstruct(structure, style, wanted), before)
