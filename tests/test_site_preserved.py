"""Whole hospitals in even folds: against every dealing there is, and on real cohorts."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pathoml.cohort import Cohort
from pathoml.errors import CohortError
from pathoml.splits import SitePreservedSettings, SplitsSettings, deal, deal_sites, make_folds
from tests.test_splits import cohort, uneven

THREE = SitePreservedSettings(folds=3)


def names(count: int) -> list[str]:
    return [f"H{index}" for index in range(count)]


def best_possible(events: np.ndarray, patients: np.ndarray, folds: int) -> tuple[float, float]:
    """Try every dealing: the smallest largest distance of events, and then the smallest sum of all distances."""
    found = []
    for dealing in itertools.product(range(folds), repeat=len(events)):
        distances = [
            np.abs(np.bincount(dealing, weights=one, minlength=folds) / one.sum() - 1 / folds)
            for one in (events, patients)
        ]
        found.append((round(float(distances[0].max()), 12), float(np.sum(distances))))
    return min(found)


@pytest.mark.parametrize("seed", range(6))
def test_no_dealing_of_whole_hospitals_is_more_even(seed: int) -> None:
    rng = np.random.default_rng(seed)
    patients = rng.integers(2, 40, 8)
    events = rng.binomial(patients, 0.3) + (np.arange(8) < 3)
    dealt = deal_sites(names(8), events, patients, THREE, seed)
    largest, total = best_possible(events, patients, 3)
    assert dealt.balance.events_off == pytest.approx(largest, abs=1e-9)
    assert dealt.balance.unevenness == pytest.approx(total, abs=1e-6)
    assert dealt.balance.gap <= 1e-9
    assert dealt.balance.unevenness_bound == pytest.approx(total, abs=1e-4)


def test_what_is_said_of_the_balance_is_what_the_folds_are() -> None:
    everyone = uneven()
    dealing = deal(everyone, SplitsSettings(schemes=(SitePreservedSettings(folds=4),)))
    (balance,) = dealing.balances["site_preserved"]
    events = [everyone.event[everyone.rows_of(fold.test)].sum() / everyone.event.sum() for fold in dealing.folds]
    patients = [len(fold.test) / len(everyone) for fold in dealing.folds]
    assert balance.events_off == pytest.approx(np.abs(np.array(events) - 0.25).max())
    assert balance.patients_off == pytest.approx(np.abs(np.array(patients) - 0.25).max())
    assert 0 <= balance.events_bound <= balance.events_off + 1e-12
    assert 0 <= balance.unevenness_bound <= balance.unevenness + 1e-12


@pytest.mark.parametrize("repeats", [1, 2])
def test_no_hospital_stands_on_both_sides_and_everybody_is_tested_once(repeats: int) -> None:
    everyone = uneven()
    folds = make_folds(everyone, SplitsSettings(schemes=(SitePreservedSettings(folds=4, repeats=repeats),)))
    for fold in folds:
        test, rest = (set(everyone.site[everyone.rows_of(one)]) for one in (fold.test, (*fold.train, *fold.validation)))
        assert not test & rest
    for repeat in range(repeats):
        tested = [name for fold in folds if fold.repeat == repeat for name in fold.test]
        assert sorted(tested) == everyone.patient_id.tolist()


def test_a_hospital_larger_than_a_fold_bounds_what_can_be_reached() -> None:
    events = np.array([50, 10, 10, 10, 10, 10])
    dealt = deal_sites(names(6), events, events * 3, SitePreservedSettings(folds=5))
    assert dealt.balance.events_off == dealt.balance.events_bound == pytest.approx(0.3)
    others = [site for site, fold in dealt.fold_of_site.items() if fold == dealt.fold_of_site["H0"]]
    assert others == ["H0"]


def test_a_solver_without_time_still_gives_whole_hospitals_and_an_honest_bound() -> None:
    rng = np.random.default_rng(1)
    patients = rng.integers(1, 200, 60)
    events = rng.binomial(patients, 0.4)
    hurried = deal_sites(names(60), events, patients, SitePreservedSettings(folds=7, time_limit_s=1e-6))
    patient = deal_sites(names(60), events, patients, SitePreservedSettings(folds=7, time_limit_s=4))
    assert set(hurried.fold_of_site.values()) == set(range(7))
    assert hurried.balance.events_bound <= patient.balance.events_off + 1e-12
    assert patient.balance.unevenness <= hurried.balance.unevenness + 1e-12


def test_too_few_hospitals_with_events_are_refused() -> None:
    with pytest.raises(
        CohortError, match=r"5 folds need as many hospitals with an event, there are 4 among 4; use fewer"
    ):
        make_folds(cohort(), SplitsSettings(schemes=(SitePreservedSettings(),)))


def test_patients_without_a_hospital_are_refused() -> None:
    everyone: Cohort = cohort(sites=6)
    everyone.site[::7] = ""
    with pytest.raises(CohortError, match=r"site_preserved: 15 patient\(s\) have no hospital"):
        make_folds(everyone, SplitsSettings(schemes=(SitePreservedSettings(folds=3),)))


@pytest.mark.slow
def test_the_benchmark_on_real_cohorts_holds_its_targets(data_dir: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "bench" / "splits.py"
    done = subprocess.run(
        [sys.executable, str(script), str(data_dir / "tcga")], capture_output=True, text=True, check=False
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    names = {name for name in figures if not name.endswith("_s")}
    assert len(names) >= 11
    assert all(figures[name]["ok"] for name in names), done.stdout
