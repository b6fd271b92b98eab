import pytest
import torch

from bundle.engines.batches import (
    AutoencoderBatch,
    DiffusionBatch,
    DisentanglementBatch,
    RegressionBatch,
    ValidationBatch,
    hide_one_of_complete,
    region_input,
)
from bundle.errors import InputError
from bundle.inferers.training import DenoisingInferer
from bundle.networks.sampler import add_noise
from tests.networks.models import tiny

EXISTS = [[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0]]
PRESENCE = [[1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]]
HIDDEN = [(0, 1), (0, 2), (1, 3), (2, 2)]  # (sample, contrast): it exists and is not shown


def batch(exists=EXISTS, presence=PRESENCE, side=32):
    exists, presence = (torch.tensor(v, dtype=torch.float32) for v in (exists, presence))
    image = torch.rand(*exists.shape, side, side) * exists[:, :, None, None]
    regions = (torch.rand(len(exists), 3, side, side) > 0.7).float()
    valid = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.float32)[: len(exists)]
    return {
        "image": image, "seen": (0.9 * image).clamp(0, 1), "exists": exists, "presence": presence,
        "regions": regions, "valid": valid, "brain": torch.ones(len(exists), 1, side, side),
    }  # fmt: skip


def test_windows_lie_around_the_brain_and_show_what_exists():
    made = batch()
    # each contrast has a value of its own, those that do not exist another one, and the brain is one pixel
    made["seen"] = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None].expand(3, -1, 32, 32).clone()
    made["seen"][made["exists"] == 0] = 0.9
    made["brain"][:] = 0
    made["brain"][0, 0, 3, 5] = made["brain"][1, 0, 31, 31] = made["brain"][2, 0, 16, 20] = 1
    made["seen"] += 10 * made["brain"]
    image, target = AutoencoderBatch(size=8, windows=50)(made)
    assert image.shape == (150, 1, 8, 8) and target is image
    shown = {round(float(window.min()), 1) for window in image}
    assert shown == {0.1, 0.2, 0.3, 0.4}
    assert ((image > 9).sum((1, 2, 3)) == 1).all()  # the brain is in every window
    # sample 2 has two contrasts, drawn alike
    drawn = (image[100:].amin((1, 2, 3)) * 10).round().int().tolist()
    assert set(drawn) == {2, 3} and 10 < drawn.count(2) < 40


def test_a_window_without_brain_is_still_a_window():
    made = batch()
    made["brain"][:] = 0
    assert AutoencoderBatch(size=16, windows=1)(made)[0].shape == (3, 1, 16, 16)


def test_hidden_contrasts_are_reconstructed_as_they_are():
    made = batch()
    seen, targets, (presence, counted, region, labelled), _ = DisentanglementBatch(reconstruct_shown=0.0)(made)
    assert torch.equal(seen, made["seen"]) and torch.equal(presence, made["presence"]) and region is None
    assert labelled.tolist() == [1, 1, 0]  # the third has no truth of any lesion
    assert [tuple(place) for place in counted.nonzero().tolist()] == HIDDEN
    assert torch.equal(targets["counted"], counted)
    for b, j in HIDDEN:
        assert torch.equal(targets["image"][b, j], made["image"][b, j])
    # with every shown contrast too: all that exists, and the shown ones as they were seen
    _, targets, (_, counted, *_), _ = DisentanglementBatch(reconstruct_shown=1.0)(made)
    assert torch.equal(counted, made["exists"])
    shown = made["presence"].bool()
    assert torch.equal(targets["image"][shown], made["seen"][shown])


def test_shown_contrasts_are_reconstructed_as_often_as_asked():
    made = batch()
    shown = made["presence"].bool()
    prepare = DisentanglementBatch(reconstruct_shown=0.25)
    share = torch.stack([prepare(made)[1]["counted"][shown] for _ in range(400)]).mean()
    assert abs(share - 0.25) < 0.05  # 2000 draws


def test_region_mask_is_withheld_at_random():
    regions, valid = batch()["regions"], batch()["valid"]
    assert not region_input(regions, valid, 0.0).any()
    always = region_input(regions, valid, 1.0)
    assert always.shape == (3, 4, 32, 32)
    assert always[:, 3].amax((1, 2)).tolist() == always[:, 3].amin((1, 2)).tolist() == [1, 1, 0]
    assert torch.equal(always[0, :3], regions[0]) and torch.equal(always[1, 0], regions[1, 0])
    assert not always[1, 1:3].any() and not always[2].any()  # regions that the label cannot tell are not given
    given = torch.stack([region_input(regions, valid, 0.5)[:, 3, 0, 0] for _ in range(400)]).mean(0)
    assert abs(given[0] - 0.5) < 0.12 and abs(given[1] - 0.5) < 0.12 and given[2] == 0
    held = [r for r in (region_input(regions, valid, 0.5) for _ in range(20)) if not r[0, 3].any()]
    assert held and not any(r[0].any() for r in held)  # withheld means all of it
    assert DisentanglementBatch(region_mask=True, region_prob=1.0)(batch())[2][2].shape == (3, 4, 32, 32)


def diffusion_batch(model, made, **options):
    torch.manual_seed(5)
    return DiffusionBatch(model, **options)(made)


def test_diffusion_never_sees_a_hidden_image():
    model, made = tiny(), batch()
    z_t, truth, (t, target, *guidance), _ = diffusion_batch(model, made)
    assert target.tolist() == [j for _, j in HIDDEN] and z_t.shape == truth.shape == (4, 3, 8, 8)
    other = {**made, "image": made["image"].clone(), "seen": made["seen"].clone()}
    other["seen"][made["presence"] == 0] = torch.rand(32, 32)  # nothing hidden is looked at in what is seen
    other["image"][0, 2] = torch.rand(32, 32)  # the second of the four that are hidden
    z_t2, _, (t2, target2, *guidance2), _ = diffusion_batch(model, other)
    assert torch.equal(t, t2) and torch.equal(target, target2)
    for a, b in zip(guidance, guidance2, strict=True):
        assert torch.equal(a, b)
    differs = (z_t != z_t2).flatten(1).any(1).tolist()
    assert differs == [False, True, False, False]
    condition = model.diffusion.condition(*guidance)
    assert torch.equal(condition, model.diffusion.condition(*guidance2))


def test_diffusion_noises_the_latent_of_the_target():
    model, made = tiny(), batch()
    z_t, v, (t, target, fused, available, presence, mean), _ = diffusion_batch(model, made)
    with torch.no_grad():
        z_0 = model.encode(torch.stack([made["image"][b, j] for b, j in HIDDEN]).unsqueeze(1))
        structure = model.disentanglement.encode_structure(made["seen"], made["presence"])
        made_up = model.disentanglement.reconstruct_unseen(structure, made["exists"] * (1 - made["presence"]))
        of_mean = model.encode(torch.stack([made_up[b, j] for b, j in HIDDEN]).clamp(0, 1).unsqueeze(1))
    assert torch.allclose(mean, of_mean, atol=1e-5) and not torch.allclose(mean, z_0, atol=1e-2)
    a = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    assert torch.allclose(a.sqrt() * z_t - (1 - a).sqrt() * v, z_0, atol=1e-5)  # what v stands for
    noise = (z_t - a.sqrt() * z_0) / (1 - a).sqrt()
    assert torch.allclose(z_t, add_noise(z_0, noise, model.alphas_cumprod[t]), atol=1e-6)
    assert 0.8 < noise.std() < 1.2
    assert presence.tolist() == [PRESENCE[b] for b, _ in HIDDEN]
    assert t.min() >= 0 and t.max() < 1000
    assert not available[presence == 0].any() and available[presence == 1].flatten(1).any(1).all()
    # the first stages stay as they are: only the denoiser trains
    assert not z_t.requires_grad and not fused.requires_grad and not available.requires_grad
    assert model.diffusion.training and not model.autoencoder.training and not model.disentanglement.training


def test_frozen_parts_in_bfloat16():
    model, made = tiny(), batch()
    full, half = (diffusion_batch(model, made, amp=amp)[2] for amp in (False, True))
    assert torch.equal(full[0], half[0])  # the same times
    for a, b in zip(full[2:], half[2:], strict=True):
        assert (a - b.float()).abs().max() < 0.05 * a.abs().max()
    assert not torch.equal(full[2], half[2].float())


def test_diffusion_learns_from_complete_exams_too():
    """A batch in which nothing is hidden: one shown contrast of each is denoised, without its own latent."""
    model, made = tiny(), batch(EXISTS, EXISTS)
    z_t, _, args, _ = diffusion_batch(model, made)
    t, target, fused, available, presence, mean = args
    assert len(z_t) == 3
    for b, j in enumerate(target.tolist()):
        assert EXISTS[b][j] == 1 and presence[b, j] == 0
        assert presence[b].sum() == sum(EXISTS[b]) - 1
    out = DenoisingInferer()(z_t, model.diffusion, *args)
    changed = available.clone()
    changed[range(3), target] += 1
    assert torch.equal(out, DenoisingInferer()(z_t, model.diffusion, t, target, fused, changed, presence, mean))


def test_regression_sees_and_scores_what_the_model_does():
    made = batch()
    x, targets = RegressionBatch()(made)
    shown = made["presence"].bool()
    assert torch.equal(x[:, :4][shown], made["seen"][shown]) and not x[:, :4][~shown].any()
    assert torch.equal(x[:, 4:, 7, 9], made["presence"])
    assert [tuple(place) for place in targets["counted"].nonzero().tolist()] == HIDDEN
    assert torch.equal(targets["image"], made["image"])


@pytest.mark.parametrize("score_shown", [False, True])
def test_validation(score_shown):
    made = batch()
    x, targets = ValidationBatch(score_shown)(made)
    shown = made["presence"].bool()
    assert torch.equal(x[:, :4][shown], made["image"][shown]) and not x[:, :4][~shown].any()
    assert torch.equal(x[:, 4:, 0, 0], made["presence"]) and torch.equal(x[:, 4:, 0, 0], x[:, 4:, 31, 31])
    places = [tuple(place) for place in targets["counted"].nonzero().tolist()]
    assert places == ([tuple(p) for p in shown.nonzero().tolist()] if score_shown else HIDDEN)
    assert torch.equal(targets["image"], made["image"]) and torch.equal(targets["brain"], made["brain"])


def test_a_complete_exam_loses_one_contrast_before_its_structure_is_encoded():
    exists = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]])
    presence = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1]])
    drawn = torch.stack([hide_one_of_complete(exists, presence) for _ in range(200)])
    assert (drawn.sum(2) == torch.tensor([3.0, 1, 1, 2])).all() and (drawn <= presence).all()
    assert (drawn[:, 0].mean(0) < 1).all()  # each of the four is hidden at some time
    assert torch.equal(drawn[:, 3], presence[3].expand(200, 4))  # something is hidden already


def test_a_window_larger_than_the_slice_is_refused():
    with pytest.raises(InputError, match="autoencoder_window 64 is larger than a slice"):
        AutoencoderBatch(size=64).window(torch.rand(2, 32, 32), torch.ones(2), torch.ones(1, 32, 32))


def with_neighbours(made):
    """The batch with two more slices behind its own, of what exists, and not a number elsewhere."""
    there = made["exists"].bool()[:, :, None, None]
    around = [torch.where(there, torch.rand_like(made["image"]), torch.nan) for _ in range(2)]
    return {**made, **{key: torch.cat([made[key], *around], dim=1) for key in ("image", "seen")}}


def test_neighbours_are_seen_and_never_asked_for():
    made = batch()
    more = with_neighbours(made)
    seen, targets, (presence, counted, *_), _ = DisentanglementBatch(reconstruct_shown=1.0)(more)
    assert torch.equal(seen.nan_to_num(), more["seen"].nan_to_num())
    torch.testing.assert_close(targets["image"], DisentanglementBatch()(made)[1]["image"])
    out = tiny(neighbours=1).disentanglement(seen.nan_to_num(7), presence, counted)
    assert out["reconstruction"].shape == targets["image"].shape and torch.isfinite(out["reconstruction"]).all()
    window, _ = AutoencoderBatch(size=32, windows=20)(more)
    own = made["seen"].flatten(0, 1)
    assert all((window[n, 0] == own).flatten(1).all(1).any() for n in range(len(window)))


def test_the_denoiser_learns_with_neighbours():
    model = tiny(neighbours=1)
    made = with_neighbours(batch())
    z_t, truth, (_, target, fused, available, *_), _ = diffusion_batch(model, made)
    assert target.tolist() == [j for _, j in HIDDEN] and available.shape[:2] == (4, 4)
    assert all(torch.isfinite(tensor).all() for tensor in (z_t, truth, fused, available))
    made["seen"][:, 4:] = torch.where(made["seen"][:, 4:].isnan(), torch.nan, 0.0)
    assert not torch.equal(diffusion_batch(model, made)[2][2], fused)


@pytest.mark.parametrize("regions", [0, 3])
def test_validation_gives_the_network_its_neighbours(regions):
    made = with_neighbours(batch())
    made["image"] = made["image"].nan_to_num()
    model = tiny(neighbours=1, region_mask=bool(regions))
    x, targets = ValidationBatch(regions=regions)(made)
    assert x.shape[1] == model.in_channels and torch.equal(targets["image"], made["image"][:, :4])
    shown = made["presence"].bool()
    for first, k in ((0, 0), (x.shape[1] - 8, 4), (x.shape[1] - 4, 8)):
        assert torch.equal(x[:, first : first + 4][shown], made["image"][:, k : k + 4][shown])
        assert not x[:, first : first + 4][~shown].any()
    with torch.no_grad():
        assert torch.isfinite(model(x)).all()
