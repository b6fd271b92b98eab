"""The scorer finds the tissues of a subject by its other contrasts, once per target."""

import pytest
import torch
from monai.data import MetaTensor

from bundle.engines.scoring import Scorer, Subject
from tests.metrics.test_tissues import BRAIN, LESION, TISSUES, VENTRICLE, head


def subject(valid=1.0):
    images = head(noise=0.0)
    stack = torch.stack([*images.values(), *(BRAIN.float() for _ in images)])
    regions = torch.stack([LESION, LESION, LESION]).float()
    brain = MetaTensor(BRAIN[None].float())
    return Subject({"image": MetaTensor(stack), "brain": brain, "regions": regions, "valid": [valid] * 3}, TISSUES)


def test_ventricles_and_lesions():
    one, scorer = subject(), Scorer(["csf_error", "lesion_contrast", "correlation"])
    pred = one.images["t2"].clone()
    pred[VENTRICLE] = 0.6
    pred[LESION] = 0.425  # half of the way from white matter
    spread = 0.9 - 0.25  # of the truth: its percentiles are those of white matter and CSF
    found = scorer(pred, one, "t2")
    assert list(found) == ["correlation", "csf_error", "lesion_contrast"]
    assert found["csf_error"] == pytest.approx(-0.3 / spread, rel=1e-4)
    assert found["lesion_contrast"] == pytest.approx(0.5, rel=1e-4) and 0.8 < found["correlation"] < 1
    assert one.tissue("csf", "t2") is one.tissue("csf", "t2")
    assert scorer(one.images["flair"], one, "flair") == pytest.approx(
        {"correlation": 1, "csf_error": 0, "lesion_contrast": 1}
    )


def test_what_cannot_be_measured_is_left_out():
    one = subject(valid=0.0)
    assert list(Scorer(["csf_error", "lesion_contrast"])(one.images["t2"], one, "t2")) == ["csf_error"]
    one = subject()
    one.images = {name: torch.where(VENTRICLE, image * 0 + 0.5, image) for name, image in one.images.items()}
    assert Scorer(["csf_error", "correlation"])(torch.ones(BRAIN.shape), one, "t2") == {}
