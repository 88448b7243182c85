"""Newton steps of the network's linear model, one at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathoml.errors import FederationError
from pathoml.federated.linear import LinearTerms, newton_step
from pathoml.federated.network import Network
from pathoml.federated.simulate import simulate
from pathoml.federated.site_settings import LimitsSettings
from tests.federated.networks import Recorder, cohort_of, parts_of, plan_of


def terms_of(hessian: np.ndarray, point: np.ndarray) -> LinearTerms:  # type: ignore[type-arg]
    """A quadratic."""
    return LinearTerms(0.5 * float(point @ hessian @ point), hessian @ point, hessian)


def test_where_the_loss_is_convex_the_step_is_newtons() -> None:
    rng = np.random.default_rng(0)
    root, gradient = rng.normal(size=(6, 6)), rng.normal(size=6)
    hessian = root @ root.T + np.eye(6)
    step = newton_step(LinearTerms(0.0, gradient, hessian))
    np.testing.assert_allclose(step, -np.linalg.solve(hessian, gradient), rtol=1e-10)


def test_where_the_loss_is_curved_downwards_the_step_goes_down() -> None:
    """Plain Newton steps lead to the saddle at 0."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    hessian = axes @ np.diag([3.0, 1.0, -2.0, -0.1]) @ axes.T
    terms = terms_of(hessian, axes @ np.array([0.1, 0.2, 2.0, 1.0]))
    assert newton_step(terms) @ terms.gradient < 0
    assert -np.linalg.solve(hessian, terms.gradient) @ terms.gradient > 0


def test_a_step_along_which_the_loss_only_rises_is_no_end_but_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(plan_of(), Recorder({}), tmp_path)
    asked = []

    def rising(point: np.ndarray, *_: object) -> LinearTerms:  # type: ignore[type-arg]
        asked.append(point)
        return LinearTerms(1.0 + float(np.abs(point).sum()), np.ones(2), np.eye(2))

    monkeypatch.setattr(network, "_terms", rising)
    with pytest.raises(FederationError, match=r"falls no further along a step of length 1\.41; raise train\.covariate"):
        network._descend(np.zeros(2), -np.ones(2), LinearTerms(1.0, np.ones(2), np.eye(2)), sites=(), penalty=(2, 1.0))
    assert len(asked) == 10, "and not at as many points as sites compute at all"


@pytest.mark.parametrize("ridge", [1e-6, 5.0, 100.0])
def test_losses_that_are_hardly_curved_anywhere_have_their_lowest_point_found(tmp_path: Path, ridge: float) -> None:
    """Nobody has an event in the first 70 % of the follow-up: levels of the first bins are told by nothing."""
    train = {"loss": {"kind": "mtlr", "bins": 6}, "covariate_ridge": ridge}
    edges = [0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0]
    for seed in range(4):
        cohort = cohort_of(seed=seed)
        late = (cohort.event == 1) & (cohort.time_days < 2100)
        cohort = replace(cohort, time_days=np.where(late, 2100 + cohort.time_days / 3, cohort.time_days))
        plan = plan_of(
            method={"kind": "newton"}, train=train, bins={"kind": "fixed", "edges_days": edges}, minimum_patients=1,
            minimum_events=0,
        )  # fmt: skip
        parts = parts_of(plan, cohort)
        simulate(plan, parts, tmp_path / str(seed), limits=LimitsSettings(public_benchmark=True))


def test_it_is_said_that_steps_do_not_converge_before_sites_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathoml.federated.network.MOST_POINTS", 2)
    plan = plan_of(method={"kind": "newton"})
    with pytest.raises(FederationError, match=r"did not converge at 2 points; raise train\.covariate_ridge"):
        simulate(plan, parts_of(plan), tmp_path)
