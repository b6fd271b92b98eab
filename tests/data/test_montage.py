"""Truth, synthesis and error: which slice is shown, and on which scales."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from PIL import Image

from bundle.data.montage import LARGEST_ERROR, write_montage

pytestmark = pytest.mark.filterwarnings("error")
SHAPE = (40, 50, 20)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw a montage; its figure."""
    kept = []
    save = Figure.savefig

    def spy(figure, *arguments, **options):
        kept.append(figure)
        save(figure, *arguments, **options)

    def draw(*arguments):
        write_montage(tmp_path / "a.png", "Jos\u00e9 1", *arguments)
        return kept[-1]

    monkeypatch.setattr(Figure, "savefig", spy)
    return draw


@pytest.fixture
def brain():
    mask = np.zeros(SHAPE, bool)
    mask[5:35, 5:45, 4:17] = True
    return mask


def levels(brain):
    """A truth that is 0.1 + its slice / 40 everywhere in the brain."""
    return np.where(brain, 0.1 + np.arange(SHAPE[2]) / 40, 0)


def shown(figure):
    """The array that each of the axes shows, without its rim of two voxels."""
    return [np.asarray(ax.images[0].get_array())[2:-2, 2:-2] for ax in figure.axes[:-2]]


def test_middle_of_the_brain_without_a_lesion(drawn, brain):
    truth, synthesis, error = shown(drawn({"t1": (levels(brain), 0.5 * levels(brain))}, brain))
    assert truth.shape == (40, 30)  # rows run along A, columns along R
    assert np.all(truth == 0.1 + 10 / 40) and np.all(synthesis == truth / 2) and np.all(error == -truth / 2)


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_slice_with_most_of_the_lesion(drawn, brain, dtype):
    lesion = np.zeros(SHAPE, dtype)
    lesion[10:12, 10:12, 6] = 1
    lesion[10:14, 20:26, 13] = 1
    lesion[:, :, 18] = 1  # outside the brain, where nothing is shown
    figure = drawn({"t1": (levels(brain), levels(brain)), "t2": (levels(brain), levels(brain))}, brain, lesion)
    assert all(np.all(image == 0.1 + 13 / 40) for image in shown(figure)[::3])
    assert "most of the lesion" in figure.get_suptitle()
    outlines = [[child for child in ax.get_children() if isinstance(child, ContourSet)] for ax in figure.axes[:6]]
    assert [len(found) for found in outlines] == [0, 0, 1, 0, 0, 1]
    (path,) = outlines[2][0].get_paths()
    # the box starts two voxels before the brain, at 3; the outline runs between voxels
    assert path.vertices.min(0).tolist() == [6.5, 16.5] and path.vertices.max(0).tolist() == [10.5, 22.5]


def test_lesion_outside_the_brain_is_none(drawn, brain):
    lesion = ~brain
    figure = drawn({"t1": (levels(brain), levels(brain))}, brain, lesion)
    assert np.all(shown(figure)[0] == 0.1 + 10 / 40) and "middle of the brain" in figure.get_suptitle()
    assert not any(isinstance(child, ContourSet) for child in figure.axes[2].get_children())


def test_scales_are_shared(drawn, brain):
    pairs = {"t1  20.00 dB": (levels(brain), 1 - levels(brain)), "t2": (0.2 * levels(brain), levels(brain))}
    figure = drawn(pairs, brain)
    limits = [ax.images[0].get_clim() for ax in figure.axes[:6]]
    assert limits == [(0, 1), (0, 1), (-LARGEST_ERROR, LARGEST_ERROR)] * 2
    black = figure.axes[2].images[0].get_cmap()(0.5)
    assert max(black[:3]) < 0.02  # no error
    too_dark, too_bright = (np.array(figure.axes[2].images[0].get_cmap()(place)) for place in (0.2, 0.8))
    assert too_dark[2] > too_dark[0] + 0.3 and too_bright[0] > too_bright[2] + 0.3
    assert [ax.get_ylabel() for ax in figure.axes[:6:3]] == list(pairs)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["truth", "SYNTHETIC", "error"]
    assert [text.get_text() for text in figure.axes[4].texts][-1] == "SYNTHETIC"
    assert "synthesis \N{MINUS SIGN} truth" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_nothing_overlaps(drawn, brain, rows):
    figure = drawn({f"t{n}": (levels(brain), levels(brain)) for n in range(rows)}, brain)
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in figure.axes[:-2]]
    titles = [ax.title.get_window_extent() for ax in figure.axes[:3]]
    scales = [ax.get_tightbbox() for ax in figure.axes[-2:]]
    assert figure._suptitle.get_window_extent().y0 > max(box.y1 for box in titles)
    assert min(box.y0 for box in boxes) > max(box.y1 for box in scales) and min(box.y0 for box in scales) > 0
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:3]))
    assert all(upper.y0 > lower.y1 for upper, lower in zip(boxes, boxes[3:]))


def test_file(tmp_path, brain):
    for name in ("a.png", "b.png"):
        write_montage(tmp_path / name, "x", {"t1": (levels(brain), levels(brain))}, brain)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    orange = (abs(picture - [255, 176, 0]).sum(-1) < 30).any(0)
    third = picture.shape[1] // 3
    assert orange[third:-third].any() and not orange[: third - 20].any() and not orange[-third + 40 :].any()
