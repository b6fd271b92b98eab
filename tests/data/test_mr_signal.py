"""The signal equations, against limits and against the Bloch equation stepped through time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bundle.data import mr_signal


def test_spin_echo_is_proton_density_when_tr_is_long_and_te_short():
    assert mr_signal.spin_echo(np.array(0.7), np.array(900.0), np.array(70.0), tr=1e6, te=0) == pytest.approx(0.7)


def test_spin_echo_by_hand():
    signal = mr_signal.spin_echo(np.array(0.8), np.array(1000.0), np.array(100.0), tr=1000 * math.log(2), te=100.0)
    assert signal == pytest.approx(0.8 * 0.5 / math.e)


@pytest.mark.parametrize("t1", [800.0, 1500.0, 4000.0])
def test_inversion_recovery_nulls_at_the_nulling_time_only(t1):
    null = mr_signal.nulling_time(t1, 9000.0)
    tissue = np.array(1.0), np.array(t1), np.array(100.0)
    at_null = mr_signal.inversion_recovery(*tissue, tr=9000, te=0, ti=null)
    beside = [mr_signal.inversion_recovery(*tissue, tr=9000, te=0, ti=null * f) for f in (0.9, 1.1)]
    assert at_null == pytest.approx(0, abs=1e-9)
    assert min(beside) > 0.03


@pytest.mark.parametrize("t1", [850.0, 1450.0, 4200.0])
def test_mprage_agrees_with_stepping_through_the_sequence(t1):
    ti, tr, spacing, echoes, flip = 950.0, 2100.0, 7.0, 160, 9.0
    half = spacing * echoes / 2

    def relax(m: float, time: float) -> float:
        return 1 - (1 - m) * math.exp(-time / t1)

    m = 1.0
    for _ in range(30):  # repetitions until the steady state
        m = relax(-m, ti - half)
        for echo in range(echoes):
            if echo == echoes // 2:
                middle = abs(m)
            m = relax(m * math.cos(math.radians(flip)), spacing)
        m = relax(m, tr - ti - half)
    signal = mr_signal.mprage(np.array(1.0), np.array(t1), ti=ti, tr=tr, spacing=spacing, echoes=echoes, flip=flip)
    assert signal == pytest.approx(middle, abs=4e-3)


def test_contrast_agent_shortens_both_times():
    t1, t2 = mr_signal.enhance(np.array(1000.0), np.array(100.0), np.array(0.5), r1=4.0, r2=6.0)
    assert t1 == pytest.approx(1 / 0.003)
    assert t2 == pytest.approx(1 / 0.013)


def test_ranges_are_ordered_and_within_what_is_published():
    for tissue in mr_signal.TISSUES.values():
        assert all(low <= high for low, high in (tissue.t1, tissue.t2, tissue.pd, tissue.gd))
        assert tissue.t2[1] < tissue.t1[0]
        assert tissue.pd[1] <= 1
    low, high = mr_signal.TISSUES["wm"].t1
    assert low >= 699 and high <= 1735  # Bojorquez et al. 2017
