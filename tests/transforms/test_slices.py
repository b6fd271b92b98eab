from collections import Counter

import pytest
import torch
from monai.data import DataLoader, MetaTensor, PersistentDataset
from monai.transforms import Compose, SelectItemsd

from bundle.transforms.hide import RandHideContrastsd
from bundle.transforms.slices import FixedSlicesd, MiddleSliced, SplitPresenced, slice_of


def stack(exists, depth=10):
    """What `StackContrastsd` makes: channel j of slice z holds 0.1 j + 0.01 z."""
    present = torch.tensor(exists, dtype=torch.float32)
    values = 0.1 * torch.arange(len(exists))[:, None, None, None] + 0.01 * torch.arange(depth)
    image = values.expand(-1, 8, 8, -1) * present[:, None, None, None]
    return torch.cat([image, present[:, None, None, None].expand_as(image)])


def test_split_presence():
    item = SplitPresenced()({"image": MetaTensor(stack([1, 0, 1, 1])), "other": 1})
    assert item["image"].shape == (4, 8, 8, 10) and item["image"].dtype == torch.float16
    assert item["exists"].tolist() == [1, 0, 1, 1] and item["other"] == 1
    values = torch.rand(4, 8, 8, 3)
    halved = SplitPresenced()({"image": torch.cat([values, torch.ones_like(values)])})["image"].float()
    assert (halved - values).abs().max() <= 1 / 4096  # half the step below 1


def test_a_batch_may_hold_fresh_and_cached_subjects(tmp_path):
    data = [{"image": MetaTensor(stack(exists))} for exists in ([1, 1, 0, 1], [0, 1, 1, 1])]
    transform = Compose([SplitPresenced(), SelectItemsd(["exists"]), RandHideContrastsd()])
    dataset = PersistentDataset(data, transform, cache_dir=tmp_path)
    _ = dataset[1]
    for _ in range(2):  # the first one fresh, the second one from the cache; then both from the cache
        batch = next(iter(DataLoader(dataset, batch_size=2)))
        assert batch["exists"].tolist() == [[1, 1, 0, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("times", [1, 2])
def test_every_subset_is_asked_equally_often(times):
    item = SplitPresenced()({"image": stack([1, 1, 1, 1], depth=60)})
    items = FixedSlicesd(["image"], 14 * times)(item)
    counts = Counter(tuple(i["presence"].tolist()) for i in items)
    assert set(counts.values()) == {times} and len(counts) == 14
    assert (1, 1, 1, 1) not in counts and (0, 0, 0, 0) not in counts
    # from one validation to the next the same slice has the same question
    again = FixedSlicesd(["image"], 14 * times)(item)
    assert all(torch.equal(a["presence"], b["presence"]) for a, b in zip(items, again, strict=True))


def test_slices_are_cut_where_they_should_be():
    item = SplitPresenced()({"image": stack([1, 1, 0, 1], depth=50)})
    items = FixedSlicesd(["image", "regions"], 5)({**item, "regions": item["image"][:3]})
    heights = [round(float(i["image"][0, 0, 0]) / 0.01) for i in items]
    assert heights == [5, 15, 25, 34, 44]  # from a tenth to nine tenths
    for number, i in enumerate(items):
        assert i["image"].shape == (4, 8, 8) and i["regions"].shape == (3, 8, 8)
        assert torch.equal(i["image"], item["image"][..., heights[number]])
        assert i["exists"].tolist() == [1, 1, 0, 1]
        assert i["presence"][2] == 0 and 1 <= i["presence"].sum() <= 2
    items[0]["image"][:] = 7
    assert not (item["image"] == 7).any()


def test_a_single_contrast_leaves_nothing_to_ask():
    assert FixedSlicesd(["image"], 14)(SplitPresenced()({"image": stack([0, 0, 1, 0])})) == []


def heights(image):
    """The slice that each channel of `stack` comes from."""
    return [round(float(channel[0, 0]) / 0.01) % 10 for channel in image]


@pytest.mark.parametrize(
    ("z", "neighbours", "places"),
    [(4, 0, [4]), (4, 1, [4, 3, 5]), (4, 2, [4, 3, 5, 2, 6]), (0, 1, [0, 0, 1]), (9, 2, [9, 8, 9, 7, 9])],
)
def test_neighbours_follow_nearest_first_and_the_border_is_repeated(z, neighbours, places):
    volume = stack([1, 1])[:2]
    cut = slice_of(volume, z, neighbours)
    assert cut.shape == (2 * len(places), 8, 8)
    assert heights(cut[::2]) == heights(cut[1::2]) == places
    assert torch.equal(cut[1] - cut[0], torch.full((8, 8), 0.1))  # the contrasts of a slice lie side by side


@pytest.mark.parametrize("neighbours", [0, 1])
def test_the_middle_of_a_window_has_neighbours_in_the_image_alone(neighbours):
    window = stack([1, 1])[:2, ..., 3 : 4 + 2 * neighbours]
    item = {"image": window, "brain": window[:1], "exists": torch.tensor([1.0, 0])}
    item = MiddleSliced(["image", "brain"], neighbours=neighbours)(item)
    assert item["image"].shape == (2 * (1 + 2 * neighbours), 8, 8) and item["brain"].shape == (1, 8, 8)
    assert heights(item["image"][::2]) == ([4, 3, 5] if neighbours else [3]) and item["exists"].tolist() == [1, 0]
    assert torch.equal(item["brain"][0], item["image"][0])


def test_a_slice_knows_which_contrasts_it_shows():
    item = SplitPresenced()({"image": stack([1, 1, 0, 1], depth=20)})
    item["image"][1, ..., 5] = 0
    for z, exists in ((4, [1, 1, 0, 1]), (5, [1, 0, 0, 1])):
        window = {"image": item["image"][..., z : z + 1], "exists": item["exists"]}
        assert MiddleSliced(["image"])(window)["exists"].tolist() == exists
        # nor a MetaTensor where the image is one, fresh and not from the cache: a batch cannot hold some of both
        fresh = MiddleSliced(["image"])({**window, "image": MetaTensor(window["image"])})["exists"]
        assert type(fresh) is torch.Tensor and fresh.tolist() == exists
    air = {"image": torch.zeros(4, 8, 8, 1), "exists": item["exists"]}
    assert MiddleSliced(["image"])(air)["exists"].tolist() == [1, 1, 0, 1]  # nothing can be told


def test_no_fixed_slice_asks_for_what_it_lacks():
    item = SplitPresenced()({"image": stack([1, 1, 0, 1], depth=50)})
    item["image"][3, ..., :20] = 0  # shows from slice 20 on
    item["image"][1, ..., 40:] = 0
    item["image"][3, ..., 40:] = 0  # the last one of 5 shows the first contrast alone
    items = FixedSlicesd(["image"], 5)(item)
    assert [i["exists"].tolist() for i in items] == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]]
    assert all((i["presence"] <= i["exists"]).all() and 1 <= i["presence"].sum() < i["exists"].sum() for i in items)


def test_fixed_slices_have_neighbours_in_the_image_alone():
    item = SplitPresenced()({"image": stack([1, 1])})
    cut = FixedSlicesd(["image", "brain"], 3, neighbours=1)({**item, "brain": item["image"][:1]})
    assert [heights(i["image"][::2]) for i in cut] == [[1, 0, 2], [5, 4, 6], [8, 7, 9]]
    assert [i["brain"].shape for i in cut] == [(1, 8, 8)] * 3
