import pytest
import torch

from bundle.networks.sampler import add_noise
from bundle.networks.target_denoiser import TargetDenoiser


def small(**options):
    torch.manual_seed(0)
    sizes = {"channels": (8, 16), "attention_levels": (False, True), "num_head_channels": 8, "norm_num_groups": 4}
    network = TargetDenoiser(4, 3, **{**sizes, **options}).eval()
    torch.nn.init.normal_(network.unet.out[2].conv.weight, std=0.1)  # MONAI begins with zeros
    for name, parameter in network.named_parameters():
        if "to_out" in name or "proj_out" in name or "ff.linear2" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def inputs():
    return torch.randn(1, 3, 4, 4, 4), torch.tensor([300]), torch.tensor([1]), torch.randn(1, 3, 4, 4, 4)


@pytest.mark.parametrize("conditioning", ["class", "cross_attention"])
def test_it_depends_on_all_that_it_is_told(conditioning):
    network = small(conditioning=conditioning)
    z_t, t, target, like = inputs()
    with torch.no_grad():
        y = network(z_t, t, target, like)
        assert y.shape == z_t.shape and torch.equal(y, network(z_t, t, target, like))
        for other in ((2 * z_t, t, target, like), (z_t, t + 100, target, like), (z_t, t, target + 1, like),
                      (z_t, t, target, 2 * like)):  # fmt: skip
            assert (network(*other) - y).abs().max() > 1e-4


def test_without_palette_it_does_not_see_the_target_like_latent():
    network = small(palette=False)
    z_t, t, target, like = inputs()
    with torch.no_grad():
        assert torch.equal(network(z_t, t, target, like), network(z_t, t, target, torch.randn_like(like)))


def test_cross_attention_to_one_token_adds_a_constant():
    """With one token the attention is the same at every place: eq. 3 adds a vector that depends on the target alone."""
    network = small(conditioning="cross_attention")
    seen = []
    for name, module in network.unet.named_modules():
        if name.endswith(("attn2", "cross_attn")):
            module.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        network(*inputs())
    assert seen
    for output in seen:  # (B, tokens, channels)
        assert output.std(1).max() < 1e-6 < output.abs().max()


@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_the_clean_latent_follows_from_the_truth(prediction):
    network = small(prediction=prediction)
    z_0, noise, alpha_bar = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 4, 4), torch.tensor([0.4, 0.4])
    z_t = add_noise(z_0, noise, alpha_bar)
    truth = network.truth(z_0, noise, alpha_bar)
    torch.testing.assert_close(network.clean(truth, z_t, alpha_bar[0]), z_0, atol=1e-5, rtol=1e-5)
    expected = noise if prediction == "noise" else 0.4**0.5 * noise - 0.6**0.5 * z_0
    torch.testing.assert_close(truth, expected)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="'token' must be one of"):
        small(conditioning="token")
    with pytest.raises(ValueError, match="'x' must be one of"):
        small(prediction="x")
