"""Newton steps of the network's linear model, one at a time."""

from pathlib import Path

import numpy as np
import pytest

from pathoml.errors import FederationError
from pathoml.federated.linear import LinearTerms, newton_step
from pathoml.federated.network import Network
from tests.federated.networks import Recorder, plan_of


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
