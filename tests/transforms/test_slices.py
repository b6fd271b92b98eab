from collections import Counter

import pytest
import torch
from monai.data import DataLoader, MetaTensor, PersistentDataset
from monai.transforms import Compose, SelectItemsd

from bundle.transforms.hide import RandHideContrastsd
from bundle.transforms.slices import FixedSlicesd, SplitPresenced


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
