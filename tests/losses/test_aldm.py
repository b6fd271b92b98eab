import pytest
import torch
import torch.nn.functional as F

from bundle.errors import InputError
from bundle.losses.aldm import AutoencoderLoss3D, SlicePerceptualLoss, TranslationLoss
from bundle.networks.ms_spade import MSSPADE

PATCHES = {"channels": 4, "num_layers_d": 1}


def prediction():
    made = torch.rand(2, 1, 16, 16, 16, requires_grad=True)
    return made, torch.tensor(0.25), torch.tensor([0, 3, 3])


def truth(progress=0.0):
    return {"image": torch.rand(2, 1, 16, 16, 16), "progress": progress}


def test_before_the_discriminator_joins():
    loss, (made, term, indices), wanted = AutoencoderLoss3D(discriminator=PATCHES), prediction(), truth(0.4)
    total = loss((made, term, indices), wanted)
    torch.testing.assert_close(total, (made - wanted["image"]).abs().mean() + 0.25)
    assert loss.terms["codes_in_batch"] == 2 and "adversarial" not in loss.terms


def test_each_network_gets_its_own_gradient():
    loss, (made, term, indices), wanted = AutoencoderLoss3D(1.0, discriminator=PATCHES), prediction(), truth(0.5)
    total = loss((made, term, indices), wanted)
    total.backward()
    judge = lambda x: loss.discriminator(x)[-1]  # noqa: E731
    with torch.no_grad():
        fools = (judge(made) - 1).square().mean()
        told = ((judge(wanted["image"]) - 1).square().mean() + judge(made).square().mean()) / 2
        expected = (made - wanted["image"]).abs().mean() + 0.25 + fools + told
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    got = [p.grad.clone() for p in loss.discriminator.parameters()]
    loss.discriminator.zero_grad()
    d = ((judge(wanted["image"]) - 1).square().mean() + judge(made.detach()).square().mean()) / 2
    for mine, wanted_gradient in zip(got, torch.autograd.grad(d, list(loss.discriminator.parameters()))):
        torch.testing.assert_close(mine, wanted_gradient, atol=1e-6, rtol=1e-4)


def test_weight_zero_leaves_the_discriminator_out():
    loss = AutoencoderLoss3D(0.0, discriminator=PATCHES)
    loss(prediction(), truth(0.9)).backward()
    assert all(p.grad is None for p in loss.discriminator.parameters())


def test_a_perceptual_network_from_the_disk(tmp_path):
    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().mean((1, 2, 3))

    path = tmp_path / "distance.pt"
    torch.jit.script(Distance()).save(str(path))
    perceptual = SlicePerceptualLoss(path, slices=16)
    a, b = torch.rand(2, 1, 16, 16, 16, requires_grad=True), torch.rand(2, 1, 16, 16, 16)
    # slices strictly inside the volume: not all planes, so the value is near that of the volume; [-1, 1] doubles
    torch.testing.assert_close(perceptual(a, b), 4 * (a - b).square().mean(), atol=0.05, rtol=0)
    (gradient,) = torch.autograd.grad(perceptual(a, b), a)
    assert gradient.any()
    with_it = AutoencoderLoss3D(0.0, perceptual=perceptual, perceptual_weight=0.5, discriminator=PATCHES)
    wanted = {"image": b, "progress": 0.0}
    total = with_it((a, torch.tensor(0.0), None), wanted)
    torch.testing.assert_close(total, (a - b).abs().mean() + 0.5 * perceptual(a, b))
    assert not [name for name, _ in with_it.named_parameters() if "perceptual" in name]


def test_no_perceptual_network(tmp_path):
    (tmp_path / "no.pt").write_text("no")
    for name in ("no.pt", "absent.pt"):
        with pytest.raises(InputError, match=f"{name}: is missing or no TorchScript"):
            SlicePerceptualLoss(tmp_path / name)


def test_translation_loss():
    like, back, target, source = torch.randn(4, 2, 3, 4, 4, 4)
    loss = TranslationLoss(cycle_weight=0.5)
    total = loss((like, back), {"target": target, "source": source})
    torch.testing.assert_close(total, (like - target).abs().mean() + 0.5 * (back - source).abs().mean())
    assert loss.terms["cycle"] == pytest.approx((back - source).abs().mean().item())


def test_the_cycle_loss_falls():
    """Three contrasts that are shifts and scalings of one pattern: MS-SPADE learns them, there and back."""
    network = MSSPADE(3, 2, stem_channels=8, res_channels=(8,), spade_channels=(8, 8), hidden_channels=4)
    optimizer, loss = torch.optim.Adam(network.parameters(), lr=5e-3), TranslationLoss()
    scale, shift = torch.tensor([1.0, -0.5, 0.7]), torch.tensor([0.0, 0.8, -0.6])
    terms = []
    for step in range(45):
        pattern = F.interpolate(torch.randn(2, 2, 3, 3, 3), size=6, mode="trilinear")
        source, target = torch.tensor([step % 3, (step + 1) % 3]), torch.tensor([(step + 2) % 3, step % 3])
        z = [
            scale[j][:, None, None, None, None] * pattern + shift[j][:, None, None, None, None]
            for j in (source, target)
        ]
        like = network(z[0], target)
        total = loss((like, network(like, source)), {"source": z[0], "target": z[1]})
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        terms.append(dict(loss.terms))
    first, last = (
        {name: sum(t[name] for t in part) / 9 for name in ("latent", "cycle")} for part in (terms[3:12], terms[-9:])
    )
    print(f"latent {first['latent']:.3f} -> {last['latent']:.3f}, cycle {first['cycle']:.3f} -> {last['cycle']:.3f}")
    assert last["latent"] < 0.85 * first["latent"] and last["cycle"] < 0.8 * first["cycle"]
