"""Known answers of the FROC, counted by hand."""

from __future__ import annotations

import math

import pytest

from common.errors import UserError
from common.metrics.detection import Candidate, TrueNodule, competition_metric, froc, match_candidates

SCANS = ["a", "b", "c", "d"]
NODULES = [
    TrueNodule("a", (0.0, 0.0, 0.0), 10.0),
    TrueNodule("a", (30.0, 0.0, 0.0), 4.0),
    TrueNodule("b", (0.0, 50.0, 0.0), 20.0),
]
CANDIDATES = [
    Candidate("a", (3.0, 4.0, 0.0), 0.9),  # on the first nodule's edge, 5 mm away: a hit
    Candidate("a", (0.0, 0.0, 1.0), 0.4),  # the same nodule again: neither a hit more nor a false positive
    Candidate("a", (30.0, 2.1, 0.0), 0.8),  # 2.1 mm from a nodule of 2 mm radius
    Candidate("b", (0.0, 41.0, 0.0), 0.3),
    Candidate("c", (0.0, 0.0, 0.0), 0.7),  # a nodule's place, in another scan
    Candidate("c", (5.0, 0.0, 0.0), 0.2),
]


def test_hits_by_distance_and_scan() -> None:
    hits = match_candidates(CANDIDATES, NODULES)
    assert hits.scores.tolist() == [0.9, -math.inf, 0.3]
    assert hits.false.tolist() == [False, False, True, False, True, True]


def test_a_candidate_in_two_nodules_hits_both() -> None:
    pair = [TrueNodule("a", (0.0, 0.0, 0.0), 10.0), TrueNodule("a", (6.0, 0.0, 0.0), 8.0)]
    hits = match_candidates([Candidate("a", (3.0, 0.0, 0.0), 0.5)], pair)
    assert hits.scores.tolist() == [0.5, 0.5] and not hits.false.any()


def test_excluded_findings_count_neither_way() -> None:
    """A finding in scan c is hit by one candidate, one in scan a by two that hit a nodule too."""
    excluded = [TrueNodule("c", (0.0, 0.0, 3.0), 8.0), TrueNodule("a", (0.0, 0.0, 2.0), 10.0)]
    hits = match_candidates(CANDIDATES, NODULES, excluded)
    assert hits.scores.tolist() == [0.9, -math.inf, 0.3]  # a nodule beside a finding is hit all the same
    assert hits.ignored.tolist() == [False, False, False, False, True, False]
    assert hits.false.tolist() == [False, False, True, False, False, True]
    result = froc(CANDIDATES, NODULES, SCANS, excluded=excluded)
    assert result.false_positives.mean == 2 / 4 and result.candidates.mean == 5 / 4 and result.nodules == 3
    sensitivities = [result.at[rate].mean for rate in (1 / 8, 1 / 4, 1 / 2)]
    assert sensitivities == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3]
    )  # the second nodule one false positive earlier
    with pytest.raises(UserError, match="elsewhere: not one of"):
        froc([], NODULES, SCANS, excluded=[TrueNodule("elsewhere", (0.0, 0.0, 0.0), 3.0)])


def test_curve_counted_by_hand() -> None:
    """False positives at 0.8, 0.7, 0.2: rates 1/4, 1/2, 3/4 of four scans; nodules at 0.9 and 0.3."""
    result = froc(CANDIDATES, NODULES, SCANS)
    sensitivities = [result.at[rate].mean for rate in (1 / 8, 1 / 4, 1 / 2, 1.0, 8.0)]
    assert sensitivities == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert result.cpm.mean == pytest.approx((2 * 1 / 3 + 5 * 2 / 3) / 7)
    assert result.sensitivity.mean == pytest.approx(2 / 3)
    assert result.candidates.mean == 6 / 4 and result.false_positives.mean == 3 / 4
    assert result.nodules == 3 and result.cpm.n == 4


def test_many_guesses_find_all_and_few_sure_ones_find_less() -> None:
    """Sensitivity alone would prefer the guesses; the rate of false positives tells them apart."""
    nodule = [TrueNodule("a", (0.0, 0.0, 0.0), 6.0), TrueNodule("b", (0.0, 0.0, 0.0), 6.0)]
    guesses = [Candidate(scan, (10.0 * x, 0.0, 0.0), 0.5) for scan in "ab" for x in range(40)]
    sure = [Candidate("a", (1.0, 0.0, 0.0), 0.5)]
    guessed, found = froc(guesses, nodule, ["a", "b"]), froc(sure, nodule, ["a", "b"])
    assert (guessed.sensitivity.mean, guessed.cpm.mean) == (1.0, 0.0)  # equal scores: all 39 or none
    assert (found.sensitivity.mean, found.cpm.mean) == (0.5, 0.5)


def test_interval_over_scans_and_over_patients() -> None:
    nodules = [TrueNodule(str(scan), (0.0, 0.0, 0.0), 4.0) for scan in range(40)]
    hits = [Candidate(str(scan), (0.0, 0.0, 0.0), 1.0) for scan in range(20)]
    scans = [nodule.scan for nodule in nodules]
    apart = froc(hits, nodules, scans).sensitivity
    half = 1.96 * math.sqrt(0.25 / 40)  # binomial
    assert (apart.low, apart.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.03)
    persons = froc(hits, nodules, scans, patients={scan: str(int(scan) // 10) for scan in scans})
    assert persons.sensitivity.low == 0.0 and persons.sensitivity.high == 1.0
    assert froc(hits, nodules, scans).plain() == froc(hits, nodules, scans).plain()


def test_no_candidates_and_no_nodules() -> None:
    nothing = froc([], NODULES, SCANS)
    assert nothing.cpm.mean == 0.0 and nothing.sensitivity.mean == 0.0 and nothing.candidates.mean == 0.0
    healthy = froc(CANDIDATES, [], SCANS)
    assert math.isnan(healthy.cpm.mean) and healthy.false_positives.mean == 6 / 4
    assert healthy.plain()["cpm"]["mean"] is None


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="no scans"):
        froc([], [], [])
    with pytest.raises(UserError, match="elsewhere: not one of the 4 scans"):
        froc([Candidate("elsewhere", (0.0, 0.0, 0.0), 1.0)], NODULES, SCANS)


def test_the_metric_alone_is_the_same() -> None:
    assert competition_metric(CANDIDATES, NODULES, SCANS) == froc(CANDIDATES, NODULES, SCANS).cpm.mean
