import pytest
import torch

from bundle.networks.aldm import shares
from tests.networks.aldm_models import exam, tiny


@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_the_contract_of_network_def(mode):
    model, x = tiny(), exam(16, given=(0, 2))
    model.mode = mode
    with torch.no_grad():
        y = model(x)
        assert y.shape == (1, 4, 16, 16, 16) and y.min() >= 0 and y.max() <= 1
        assert torch.equal(y[:, [0, 2]], x[:, [0, 2]]) and y[:, 1].any() and y[:, 3].any()
        assert torch.equal(y, model(x))
        model.targets = (3,)
        only = model(x)
    assert not only[:, 1].any() and torch.equal(only[:, 3], y[:, 3])


def test_several_sources_make_the_mean_of_what_each_makes():
    model = tiny()
    both = exam(16, given=(0, 2))
    with torch.no_grad():
        alone = []
        for source in (0, 2):
            x = torch.zeros_like(both)
            x[:, [source, 4 + source]] = both[:, [source, 4 + source]]
            alone.append(model(x))
        made = model(both)
    assert (alone[0][:, 1] - alone[1][:, 1]).abs().max() > 1e-3
    torch.testing.assert_close(made[:, [1, 3]], (alone[0] + alone[1])[:, [1, 3]] / 2)


def test_a_source_has_no_say_in_slices_that_its_scan_lacks():
    model, x = tiny(), exam(16, given=(0, 2))
    for channel, slices in ((0, slice(4, 8)), (2, slice(6, 10))):
        x[:, [channel, 4 + channel], ..., slices] = 0
    with torch.no_grad():
        first, second = (model.translate(x[:, [j]], [1])[0] for j in (0, 2))
        made = model(x)[0, 1]
    expected = (first + second) / 2  # where neither is there both are as good
    expected[..., 4:6], expected[..., 8:10] = second[..., 4:6], first[..., 8:10]
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(shares(x[0, 4:][[0, 2]]).sum(0), torch.ones(16, 16, 16))


def test_the_target_is_switched_and_switched_back():
    model, x = tiny(), exam(16, given=(0,))
    with torch.no_grad():
        made = [model.translate(x[:, :1], [j])[0] for j in (1, 3, 1)]
    assert torch.equal(made[0], made[2]) and (made[0] - made[1]).abs().max() > 1e-3


def test_what_is_absent_is_not_looked_at():
    model, x = tiny(), exam(16, given=(0,))
    dirty = x.clone()
    dirty[:, 1] = 7.0
    with torch.no_grad():
        assert torch.equal(model(x), model(dirty))


def test_the_seed_decides_the_sample_and_the_mean_ignores_it():
    model, x = tiny(), exam(16, given=(0,))
    made = {}
    with torch.no_grad():
        for mode in ("mean", "sample"):
            for seed in (0, 1):
                model.mode, model.seed = mode, seed
                made[mode, seed] = model(x)
    assert torch.equal(made["mean", 0], made["mean", 1]) and not torch.equal(made["sample", 0], made["sample", 1])


def test_without_ms_spade_the_source_itself_is_decoded():
    model, x = tiny(spade=False), exam(16, given=(0,))
    model.mode = "mean"
    with torch.no_grad():
        made = model(x)
        rebuilt = model.autoencoder(x[:, :1])[0].clamp(0, 1)
    torch.testing.assert_close(made[:, 1:2], rebuilt)


def test_latents_are_scaled():
    model, image = tiny(regulariser="kl"), torch.rand(1, 1, 16, 16, 16)
    plain = model.encode(image)
    rebuilt = model.decode(plain)
    model.latent_scale.fill_(4.0)
    torch.testing.assert_close(model.encode(image), 4 * plain)
    torch.testing.assert_close(model.decode(4 * plain), rebuilt)


def test_other_contrasts():
    model = tiny(contrasts=("t1", "flair"))
    with torch.no_grad():
        assert model(exam(8, given=(1,), count=2)).shape == (1, 2, 8, 8, 8)


def test_what_does_not_fit_is_refused():
    model = tiny()
    assert model.divisor == 8
    with pytest.raises(ValueError, match="multiples of 8"):
        model(exam(12))
    with pytest.raises(ValueError, match="no contrast at all"):
        model(exam(8, given=()))
    model.mode = "average"
    with pytest.raises(ValueError, match="'average' must be one of"):
        model(exam(8))
