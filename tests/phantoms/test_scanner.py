import numpy as np
import pytest
import torch

from bundle.phantoms.scanner import CONTRASTS, LIKE, NAMES, Grid, acquire, draw_grids, draw_protocol, in_slices

AT = {name: number for number, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def protocols():
    return [draw_protocol(np.random.default_rng(seed)) for seed in range(200)]


def test_every_tissue_has_relaxation_times():
    assert set(LIKE) == set(NAMES) and len(NAMES) == len(set(NAMES))


def ratios(protocols, contrast, tissue, other):
    """How bright a tissue is by another one: 3rd percentile, median and 97th percentile of the protocols."""
    signals = [shown[contrast].signal for shown in protocols]
    return np.percentile([signal[AT[tissue]] / signal[AT[other]] for signal in signals], (3, 50, 97))


def test_contrasts_order_the_tissues_as_scanners_do(protocols):
    def below(contrast, tissue, other, limit):
        assert ratios(protocols, contrast, tissue, other)[2] < limit, (contrast, tissue, other)

    below("t1", "cortex", "white matter", 0.97)
    below("t1", "deep grey", "white matter", 1)
    below("t1", "ventricle", "cortex", 0.8)
    below("t2", "cortex", "ventricle", 0.7)
    below("t2", "pallidum", "cortex", 0.9)
    below("t1ce", "cortex", "vessel", 0.7)
    below("flair", "ventricle", "white matter", 0.3)


def test_plaques_have_the_contrast_that_real_ones_have(protocols):
    """Real ones, medians of two subjects: 0.77 of white matter in T1, 1.8 in T2 and 1.4 in FLAIR."""
    for contrast, low, middle, high in (("t1", 0.4, 0.72, 1.05), ("t2", 1.3, 1.85, 2.6), ("flair", 1, 1.55, 2.6)):
        found = ratios(protocols, contrast, "plaque", "white matter")
        assert found[0] > low and found[2] < high, contrast
        assert found[1] == pytest.approx(middle, rel=0.1), contrast


def test_only_what_takes_up_contrast_agent_is_brighter_after_it(protocols):
    gains = []
    for shown in protocols:
        t1, t1ce = shown["t1"].signal, shown["t1ce"].signal
        gains.append((t1ce / t1ce[AT["white matter"]]) / (t1 / t1[AT["white matter"]]))
    middle = np.median(gains, axis=0)
    assert middle[AT["enhancing"]] > 1.25 and middle[AT["choroid plexus"]] > 1.25
    for name in ("cortex", "oedema", "plaque", "ventricle", "diffuse"):
        assert middle[AT[name]] == pytest.approx(1, abs=0.12), name


def test_protocols_differ(protocols):
    grey = np.array([p["t1"].signal[AT["cortex"]] / p["t1"].signal[AT["white matter"]] for p in protocols])
    assert np.ptp(np.percentile(grey, (5, 95))) > 0.2
    white = np.array([p["t2"].signal[AT["white matter"]] / p["t2"].signal[AT["ventricle"]] for p in protocols])
    assert np.percentile(white, 5) < 0.3 and np.percentile(white, 95) > 0.4


def test_slices_are_averages():
    ramp = torch.arange(12.0).view(1, 1, 1, 12).expand(1, 4, 5, 12)
    found = in_slices(ramp, Grid(2, 4.0), 0.0, torch.Generator())
    assert found.shape == (1, 4, 5, 3)
    assert found[0, 0, 0].tolist() == [1.5, 5.5, 9.5]
    uneven = in_slices(torch.ones(1, 4, 40, 5), Grid(1, 2.0), 0.1, torch.Generator().manual_seed(0))
    assert uneven.shape == (1, 4, 20, 5)
    assert 0.05 < float(uneven[0, 0, :, 0].std()) < 0.15 and not uneven[0].std((0, 2)).any()


def test_thick_slices_blur_across_them_alone():
    stripes = 10 * (torch.arange(40) // 2 % 2).float() + 10
    for axis in (0, 2):
        image = stripes.view([-1 if a == axis else 1 for a in range(3)]).expand(40, 40, 40)
        contrast = []
        for grid in (Grid(axis), Grid(axis, 4.0), Grid(1, 4.0)):
            found = acquire(image, 15.0, grid, np.random.default_rng(2), torch.Generator().manual_seed(2))
            profile = found.mean([a for a in range(3) if a != axis])
            contrast.append(float(profile.std() / profile.mean()))
        assert contrast[1] < 0.5 * contrast[0] and contrast[2] > 0.8 * contrast[0]


def test_t2_and_flair_have_thick_slices_more_often():
    drawn = [draw_grids(np.random.default_rng(seed)) for seed in range(400)]
    share = {name: np.mean([grids[name].thickness > 0 for grids in drawn]) for name in CONTRASTS}
    assert share["t1"] == pytest.approx(0.25, abs=0.06) and share["flair"] == pytest.approx(0.5, abs=0.07)
    assert all(g.thickness == 0 or 2 <= g.thickness <= 6 for grids in drawn for g in grids.values())


def test_noise_is_that_of_magnitude_images():
    empty = torch.zeros(40, 40, 40)
    found = acquire(empty, 1.0, Grid(2), np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert float(found.min()) > 0 and float(found.mean() / found.std()) > 1.9  # Rayleigh: 1.91, more when blurred
