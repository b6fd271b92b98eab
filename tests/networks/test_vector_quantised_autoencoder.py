import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bundle.networks.vector_quantised_autoencoder import Gaussian, VectorQuantisedAutoencoder


def small(**options):
    torch.manual_seed(0)
    sizes = {"channels": (4, 8), "res_channels": (4, 8), "num_res_blocks": 1, "latent_channels": 3, "num_codes": 16}
    if options.get("normalised"):
        sizes |= {"channels": (4, 8, 8), "norm_num_groups": 2}
    return VectorQuantisedAutoencoder(**{**sizes, **options}).eval()


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("regulariser", ["vq", "kl"])
def test_shapes(normalised, regulariser):
    network, x = small(normalised=normalised, regulariser=regulariser), torch.rand(2, 1, 16, 8, 24)
    latent, loss, indices = network.encode(x)
    assert network.factor == 4 and latent.shape == (2, 3, 4, 2, 6)
    assert (indices is None) == (regulariser == "kl") and torch.isfinite(loss) and loss >= 0
    made, _, _ = network(x)
    assert made.shape == x.shape
    torch.testing.assert_close(network.decode(latent), made)


def test_what_is_decoded_is_a_code():
    network, z = small(), torch.randn(1, 3, 4, 4, 4)
    assert torch.equal(network.decode(z), network.decode(network.regulariser.snap(z)))
    codes = network.regulariser.embedding.weight
    snapped = network.regulariser.snap(z).movedim(1, -1).reshape(-1, 1, 3)
    assert (snapped == codes).all(-1).any(1).all()


@torch.no_grad()
def seam(network):
    """Largest difference between a volume decoded in tiles and at once, relative to its range."""
    z = torch.nn.functional.interpolate(torch.randn(1, 3, 2, 2, 12), size=(8, 8, 48), mode="trilinear")
    network.tile = None
    whole = network.decode(z)
    network.tile = 24
    return ((network.decode(z) - whole).abs().max() / (whole.max() - whole.min())).item()


def test_tiles_leave_no_seam_where_nothing_is_normalised():
    ours, vqgan = seam(small()), seam(small(normalised=True))
    print(f"seam: VQ-VAE's blocks {ours:.1e}, VQGAN's {vqgan:.1e}")
    assert ours < 1e-4 < vqgan


def test_latents_of_a_crop_are_those_of_the_volume():
    """But for what lies nearer to the crop's border than the encoder sees, 5 latents."""
    network, x = small(regulariser="kl"), torch.rand(1, 1, 64, 64, 64)
    with torch.no_grad():
        whole, crop = network.encode(x)[0], network.encode(x[..., 8:56, 8:56, 8:56])[0]
    torch.testing.assert_close(crop[..., 5:-5, 5:-5, 5:-5], whole[..., 7:-7, 7:-7, 7:-7], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("normalised", [False, True])
def test_checkpointing_changes_no_gradient(normalised):
    gradients = []
    for checkpointing in (False, True):
        network = small(normalised=normalised, checkpointing=checkpointing).train()
        x = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(2)
        made, loss, _ = network(x)
        ((made - x).abs().mean() + loss).backward()
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


def test_the_kl_term():
    mean, log_variance = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    latent, loss, _ = Gaussian(weight=0.5).eval()(torch.cat([mean, log_variance], dim=1))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(loss, 0.5 * expected)
    assert torch.equal(latent, mean)


def test_another_regulariser_is_refused():
    with pytest.raises(ValueError, match="'vae' must be one of"):
        small(regulariser="vae")


def test_it_learns_and_its_codes_are_used():
    network = small(num_codes=64, codebook_decay=0.9, codebook_warm_up=40).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    grid = torch.linspace(0, 6, 16)
    losses = []
    for _ in range(80):
        a, b = torch.rand(2, 1, 1, 1, 1) * 3
        x = (0.5 + 0.5 * torch.sin(grid[:, None, None] + a) * torch.cos(grid[None, :, None] + b)).expand(
            2, 1, 16, 16, 16
        )
        made, loss, indices = network(x)
        total = (made - x).abs().mean() + loss
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, {len(indices.unique())} codes")
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert len(indices.unique()) > 8
