import pytest
import torch

from bundle.engines.aldm_batches import CropBatch, DenoisingBatch, TranslationBatch, ValidationVolume
from bundle.inferers.aldm import as_volume
from tests.networks.aldm_models import CONTRASTS, tiny


def latents(exists):
    """One subject whose latent of contrast j is the constant j, seen 10 + j."""
    j = torch.arange(4.0)[None, :, None, None, None, None].expand(1, 4, 3, 4, 4, 4)
    return {"image": j, "seen": j + 10, "exists": torch.tensor([exists])}


def test_crops_show_a_contrast_that_exists():
    seen = torch.arange(4.0)[None, :, None, None, None].expand(50, 4, 8, 8, 8)
    image, truth = CropBatch()({"seen": seen, "exists": torch.tensor([[1.0, 0, 1, 0]]).expand(50, 4)}, progress=0.3)
    assert image.shape == (50, 1, 8, 8, 8) and set(image.unique().tolist()) == {0.0, 2.0}
    assert truth["progress"] == 0.3 and torch.equal(truth["image"], image)


def test_pairs_differ_and_exist():
    z_src, truth, (source, target), _ = TranslationBatch(pairs=200)(latents([1.0, 0, 1, 1]))
    assert (source != target).all() and set(source.tolist()) == set(target.tolist()) == {0, 2, 3}
    assert torch.equal(z_src[:, 0, 0, 0, 0], 10 + source.float()) and torch.equal(truth["source"], z_src)
    assert torch.equal(truth["target"][:, 0, 0, 0, 0], target.float())
    assert len({(a, b) for a, b in zip(source.tolist(), target.tolist())}) == 6


def test_a_subject_with_one_contrast_is_its_own_target():
    _, _, (source, target), _ = TranslationBatch(pairs=3)(latents([0.0, 0, 1, 0]))
    assert source.tolist() == target.tolist() == [2, 2, 2]


@pytest.mark.parametrize("spade", [True, False])
def test_denoising(spade):
    model = tiny(spade=spade)
    z_t, truth, (t, target, like), _ = DenoisingBatch(model, pairs=6)(latents([1.0, 1, 1, 1]))
    alpha_bar = model.alphas_cumprod[t].reshape(-1, 1, 1, 1, 1)
    z_0 = target.float()[:, None, None, None, None].expand_as(z_t)
    noise = (z_t - alpha_bar.sqrt() * z_0) / (1 - alpha_bar).sqrt()
    torch.testing.assert_close(truth, alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * z_0, atol=1e-2, rtol=1e-2)
    assert noise.std() == pytest.approx(1, abs=0.15) and not like.requires_grad
    if not spade:
        assert set((like[:, 0, 0, 0, 0] - 10).tolist()) <= {0.0, 1.0, 2.0, 3.0}
        assert (like[:, 0, 0, 0, 0] - 10 != target).all()
    assert model.diffusion.training and not model.autoencoder.training


@pytest.mark.parametrize(("exists", "shown"), [([1.0, 1, 0, 1], 1), ([0.0, 0, 1, 1], 2)])
def test_validation(exists, shown):
    image, brain = torch.rand(1, 4, 5, 6, 7), torch.ones(1, 1, 5, 6, 7)
    batch = {"image": image, "exists": torch.tensor([exists]), "brain": brain}
    slices, truth = ValidationVolume(CONTRASTS, source="t1ce")(batch)
    volume = as_volume(slices)
    assert torch.equal(volume[:, shown], image[:, shown])
    others = [j for j in range(4) if j != shown]
    assert not volume[:, others].any() and volume[:, 4:].amax((0, 2, 3, 4)).tolist() == [
        float(j == shown) for j in range(4)
    ]
    asked = [exists[j] * (j != shown) for j in range(4)]
    assert truth["counted"].shape == (7, 4) and truth["counted"][3].tolist() == asked
    assert torch.equal(as_volume(truth["image"]), image) and truth["brain"].shape == (7, 1, 5, 6)
    _, ceiling = ValidationVolume(CONTRASTS, "t1ce", score_shown=True)(batch)
    assert ceiling["counted"][0].tolist() == [float(j == shown) for j in range(4)]
