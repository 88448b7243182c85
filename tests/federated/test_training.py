"""Training over a network: the same code, the same numbers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.optimize import minimize

from pathoml.errors import FederationError
from pathoml.federated.coordinator import run_federation
from pathoml.federated.linear import LEVEL_RIDGE
from pathoml.federated.messages import from_bytes, to_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.setup import arrays_of, build_model, load_arrays_into, setup_from_arrays
from pathoml.federated.simulate import pool, simulate, split_cohort
from pathoml.federated.site import Site
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings
from pathoml.federated.training import settings_of
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objective import Outcome
from pathoml.mil.patients import select_patients
from pathoml.pipeline.federation_pages import write_coordinators_page
from pathoml.train import follow_up, local_update
from pathoml.train_state import start_state
from tests.federated.networks import FEATURES, SITES, Recorder, cohort_of, features_of, parts_of, plan_of

ONE = ("alone",)
WITH_TILES = {"features": FEATURES, "model": {"tile_components": 4}}


def setup_in(folder: Path, plan: Plan) -> Any:
    arrays = load_file(folder / "coordinator" / "checkpoint.safetensors")
    return setup_from_arrays(plan, {n.removeprefix("setup."): a for n, a in arrays.items() if n.startswith("setup.")})


def sites_of(
    plan: Plan, parts: dict[str, SiteData], folder: Path, limits: LimitsSettings = DEFAULT_LIMITS
) -> dict[str, Site]:
    return {name: Site(folder / name, lambda _: plan, lambda _, d=data: d, limits) for name, data in parts.items()}  # type: ignore[misc]


@pytest.mark.parametrize(
    "train", [{}, {"batch_patients": 32, "tile_dropout": 0.2, "schedule": "cosine"}], ids=["whole", "batches"]
)
def test_one_site_by_fedavg_is_local_training_bit_for_bit(tmp_path: Path, train: dict[str, Any]) -> None:
    plan = plan_of(
        ONE, train={"loss": {"kind": "discrete"}, "learning_rate": 0.02, **train}, **WITH_TILES,
        method={"kind": "rounds", "rounds": 3, "local_epochs": 2, "aggregation": {"kind": "fedavg"}, "start": "zero"},
    )  # fmt: skip
    cohort = cohort_of(sites=ONE)
    data = split_cohort(cohort, features_of(cohort), plan)["alone"]
    result = simulate(plan, {"alone": data}, tmp_path)
    setup, settings = setup_in(tmp_path, plan), settings_of(plan)
    state = start_state(build_model(plan, setup), settings)
    chosen = select_patients(data.cohort, data.features, data.train)
    patients = TrainingPatients(chosen, data.cohort, setup.projection, setup.transform, settings, "cpu")
    for _ in range(6):
        local_update(state, patients, setup.objective(plan), settings)
    for name, array in arrays_of(state.model).items():
        np.testing.assert_array_equal(result.package.members[0].model.state_dict()[name].numpy(), array, err_msg=name)


@pytest.mark.parametrize("loss", [{"kind": "discrete"}, {"kind": "mtlr"}, {"kind": "cox", "stratified": True}], ids=str)
def test_gradients_of_sites_add_up_to_that_of_all_patients_in_one_place(tmp_path: Path, loss: dict[str, Any]) -> None:
    plan = plan_of(train={"loss": loss})
    parts = parts_of(plan)
    simulate(plan.model_copy(update={"method": plan.method.model_copy(update={"rounds": 1})}), parts, tmp_path)
    first = plan.model_copy(update={"method": plan.method.model_copy(update={"rounds": 1})})
    setup = setup_in(tmp_path, first)
    objective = setup.objective(plan)
    torch.manual_seed(0)
    start = torch.randn(len(setup.transform.names), dtype=torch.float64)

    def gradient(data: SiteData) -> tuple[torch.Tensor, int]:
        weight = start.clone().requires_grad_()
        rows = data.cohort.rows_of(data.train)
        design = torch.from_numpy(setup.transform.apply(data.cohort.covariates.iloc[rows]))
        time_days, event = follow_up(data.cohort, data.train)
        stratum = torch.from_numpy(np.unique(data.cohort.site[rows], return_inverse=True)[1])
        outcome = Outcome(torch.from_numpy(event == 1), torch.from_numpy(time_days), stratum)
        value = objective.loss((design @ weight)[:, None].expand(-1, objective.out), outcome)
        return torch.autograd.grad(value, weight)[0], objective.denominator(outcome)

    told = [gradient(data) for data in parts.values()]
    joined = sum(one * count for one, count in told) / sum(count for _, count in told)
    torch.testing.assert_close(joined, gradient(pool(parts))[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "loss",
    [{"kind": "discrete"}, {"kind": "cox", "stratified": True}, {"kind": "pmf"}, {"kind": "mtlr"}],
    ids=lambda loss: loss["kind"],
)
def test_newton_steps_end_where_an_optimiser_on_all_patients_does(tmp_path: Path, loss: dict[str, Any]) -> None:
    train = {"loss": loss, "covariate_ridge": 5.0}
    plan = plan_of(method={"kind": "newton"}, train=train, minimum_patients=1, minimum_events=1)
    parts = parts_of(plan)
    result = simulate(plan, parts, tmp_path, limits=LimitsSettings(public_benchmark=True))
    setup, data = setup_in(tmp_path, plan), pool(parts)
    objective = setup.objective(plan)
    rows = data.cohort.rows_of(data.train)
    design = torch.from_numpy(setup.transform.apply(data.cohort.covariates.iloc[rows]))
    time_days, event = follow_up(data.cohort, data.train)
    stratum = torch.from_numpy(np.unique(data.cohort.site[rows], return_inverse=True)[1])
    outcome = Outcome(torch.from_numpy(event == 1), torch.from_numpy(time_days), stratum)
    width = design.shape[1]
    levels = objective.out if objective.has_level else 0

    def value(point: np.ndarray) -> tuple[float, np.ndarray]:  # type: ignore[type-arg]
        theta = torch.tensor(point, requires_grad=True)
        logits = (design @ theta[:width])[:, None] + (theta[width:] if levels else torch.zeros(1))
        total = objective.loss(logits, outcome) * objective.denominator(outcome)
        total = total + 2.5 * theta[:width].square().sum() + LEVEL_RIDGE / 2 * theta[width:].square().sum()
        return float(total.detach()), torch.autograd.grad(total, theta)[0].numpy()

    found = minimize(value, np.zeros(width + levels), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500}).x
    np.testing.assert_allclose(
        result.package.members[0].model.covariate_weight.detach().numpy(), found[:width], atol=1e-6
    )


def test_transforms_from_sums_are_those_of_all_training_patients(tmp_path: Path) -> None:
    plan = plan_of(method={"kind": "newton"})
    parts = parts_of(plan)
    simulate(plan, parts, tmp_path, limits=LimitsSettings(public_benchmark=True))
    data, fitted = pool(parts), setup_in(tmp_path, plan).transform
    raw = data.cohort.covariates.iloc[data.cohort.rows_of(data.train)]
    columns = fitted.apply(raw)
    age = raw["age"].fillna(raw["age"].mean())
    np.testing.assert_allclose(columns[:, 0], (age - age.mean()) / age.std(ddof=0), atol=1e-10)
    genes = raw[[name for name in raw.columns if name.startswith("gene")]]
    standard = ((genes - genes.mean()) / genes.std(ddof=0)).to_numpy()
    expected = np.abs(np.linalg.svd(standard, full_matrices=False)[0][:, :3] * np.sqrt(len(raw)))
    np.testing.assert_allclose(np.abs(columns[:, -3:]), expected, atol=1e-8)


def test_tiles_standardised_at_their_own_site_do_not_show_the_stain(tmp_path: Path) -> None:
    plan = plan_of(features={**FEATURES, "scaling": "site"}, model={"tile_components": 4})
    result = simulate(plan, parts_of(plan), tmp_path)
    shared = simulate(plan_of(**WITH_TILES), parts_of(plan_of(**WITH_TILES)), tmp_path / "network")
    first, second = (one.package.members[0].projection for one in (result, shared))
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first.mean, second.mean)  # of the network, for hospitals without tiles of their own
    assert not np.allclose(first.components, second.components)


@pytest.mark.parametrize("kind", ["fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "scaffold"])
def test_a_killed_coordinator_goes_on_to_the_same_weights(tmp_path: Path, kind: str) -> None:
    method = {"kind": "rounds", "rounds": 4, "aggregation": {"kind": kind}}
    plan = plan_of(method=method, train={"loss": {"kind": "discrete"}, "optimizer": "sgd", "learning_rate": 0.1})
    parts = parts_of(plan)
    undisturbed = run_federation(plan, Recorder(sites_of(plan, parts, tmp_path / "a")), tmp_path / "a")
    killed = Recorder(sites_of(plan, parts, tmp_path / "b"))
    killed.stop_before = ("train", 2)
    with pytest.raises(KeyboardInterrupt):
        run_federation(plan, killed, tmp_path / "b")
    again = run_federation(plan, Recorder(sites_of(plan, parts, tmp_path / "b")), tmp_path / "b")
    for name, tensor in undisturbed.package.members[0].model.state_dict().items():
        torch.testing.assert_close(again.package.members[0].model.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_site_that_is_away_for_a_round_is_taken_up_again(tmp_path: Path) -> None:
    plan = plan_of(quorum=2)
    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path))
    recorder.lost.add(("west", "train", 1))
    result = run_federation(plan, recorder, tmp_path / "out")
    assert [row["sites"] for row in result.history] == [3.0, 2.0, 3.0]
    assert "away at the end" not in (tmp_path / "out" / "package" / "MODEL_CARD.md").read_text()
    assert '"west"' in (tmp_path / "out" / "coordinator.jsonl").read_text()


def test_a_site_that_was_away_at_the_end_is_named_on_the_card_and_rounds_are_on_the_page(tmp_path: Path) -> None:
    plan = plan_of(quorum=2)
    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path))
    recorder.lost |= {
        ("west", kind, number) for kind in ("train", "setup", "calibrate", "evaluate") for number in range(1, 9)
    }
    recorder.lost |= {("west", "calibrate", 0), ("west", "evaluate", 0)}
    kit = tmp_path / "kit" / "federation" / plan.digest[:16]
    run_federation(plan, recorder, kit)
    assert (
        "for a part of the training, those of west, away at the end" in (kit / "package" / "MODEL_CARD.md").read_text()
    )
    page = write_coordinators_page(tmp_path / "kit").read_text()
    assert "Sites that trained in each round" in page
    assert "2 to 3" in page


def test_a_site_that_stays_away_holds_up_the_others_for_a_tenth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round asked it again, and waited for half a minute."""
    clock = SimpleNamespace(now=0.0, waited=0.0)
    monkeypatch.setattr("pathoml.federated.network.time", SimpleNamespace(monotonic=lambda: clock.now))

    class Slow(Recorder):
        def exchange(self, request: Any, sites: Any, quorum: int) -> Any:
            answers = super().exchange(request, sites, quorum)
            took = 30.0 if len(answers) < len(sites) else 10.0
            clock.now, clock.waited = clock.now + took, clock.waited + took - 10
            return answers

    plan = plan_of(quorum=2, method={"kind": "rounds", "rounds": 60, "start": "zero"})
    recorder = Slow(sites_of(plan, parts_of(plan), tmp_path))
    recorder.lost |= {("west", kind, number) for kind in ("train", "setup") for number in range(1, 40)}
    recorder.lost.add(("west", "setup", 0))
    members = dict(recorder.members)

    class BackLater:
        def answer(self, request: bytes) -> bytes:
            return members["west"].answer(request)

    recorder.members["west"] = BackLater()
    trained = []
    exchange = recorder.exchange

    def back_after_forty_rounds(request: Any, sites: Any, quorum: int) -> Any:
        if request.kind == "train" and request.round_number == 40:
            recorder.lost.clear()
        if request.kind == "train":
            trained.append("west" in sites)
        return exchange(request, sites, quorum)

    monkeypatch.setattr(recorder, "exchange", back_after_forty_rounds)
    run_federation(plan, recorder, tmp_path / "out")
    assert clock.waited < 0.2 * clock.now
    assert not any(trained[2:40])
    assert trained[-1], "it takes part again when it is back"


@pytest.mark.parametrize("method", [{"kind": "newton"}, {"kind": "rounds", "rounds": 2}], ids=["newton", "rounds"])
def test_a_site_with_too_few_patients_is_told_the_model_and_trains_nothing(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    plan = plan_of(quorum=2, method=method)
    parts = parts_of(plan)
    few = replace(parts["west"], train=parts["west"].train[:10])
    recorder = Recorder(sites_of(plan, {**parts, "west": few}, tmp_path / "few"))
    with_few = run_federation(plan, recorder, tmp_path / "few" / "out")
    told = {from_bytes(content).kind for name, content in recorder.left if name == "west"}
    assert told == {"refused", "setup", "evaluate"}
    assert set(with_few.scores) == set(plan.sites)
    two = plan.model_copy(update={"sites": ("north", "south")})
    without = simulate(two, {name: parts[name] for name in two.sites}, tmp_path / "two")
    first, second = (one.package.members[0].model.covariate_weight for one in (with_few, without))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_a_network_below_its_quorum_stops_and_says_so(tmp_path: Path) -> None:
    plan = plan_of()
    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path))
    recorder.lost.add(("west", "train", 1))
    with pytest.raises(FederationError, match="2 of 3 sites gave an answer that can be used, and the quorum is 3"):
        run_federation(plan, recorder, tmp_path / "out")


@pytest.mark.parametrize("factor", [np.nan, 1e6], ids=["nan", "too long"])
def test_an_update_that_is_not_finite_or_too_long_is_refused_and_the_others_go_on(
    tmp_path: Path, factor: float
) -> None:
    plan = plan_of(quorum=2)

    def spoil(content: bytes) -> bytes:
        answer = from_bytes(content)
        return to_bytes(replace(answer, arrays={name: one * np.float32(factor) for name, one in answer.arrays.items()}))

    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path))
    recorder.altered[("west", "train")] = spoil
    result = run_federation(plan, recorder, tmp_path / "out")
    assert [row["sites"] for row in result.history] == [2.0, 2.0, 2.0]
    assert torch.isfinite(result.package.members[0].model.covariate_weight).all()
    log = (tmp_path / "out" / "coordinator.jsonl").read_text()
    assert "not finite" in log if np.isnan(factor) else "may leave" in log


def test_scaffold_with_one_site_is_plain_gradient_descent(tmp_path: Path) -> None:
    results = []
    for kind in ("scaffold", "fedavg"):
        plan = plan_of(
            ONE, method={"kind": "rounds", "rounds": 4, "local_epochs": 2, "aggregation": {"kind": kind}},
            train={"loss": {"kind": "discrete"}, "optimizer": "sgd", "learning_rate": 0.1},
        )  # fmt: skip
        parts = parts_of(plan, cohort_of(sites=ONE))
        results.append(simulate(plan, parts, tmp_path / kind).package.members[0].model.covariate_weight.detach())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_scaffold_brings_sites_that_run_apart_to_where_the_pooled_loss_is_lowest(tmp_path: Path) -> None:
    """With many local steps plain averaging stops elsewhere: that is what the control variates are for.

    Sites are of different sizes, so that a control variate that counts each alike ends elsewhere too.
    """
    distance = {}
    cohort = cohort_of(patients=480)
    sizes = np.repeat(SITES, [280, 130, 70])
    for kind in ("scaffold", "fedavg"):
        plan = plan_of(
            method={"kind": "rounds", "rounds": 40, "local_epochs": 20, "aggregation": {"kind": kind}, "weight": "patients"},
            train={"loss": {"kind": "discrete"}, "optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 0.0,
                   "covariate_ridge": 1e-6}, update_norm=1000.0,
        )  # fmt: skip
        parts = parts_of(plan, replace(cohort, site=sizes))
        start = simulate(
            plan.model_copy(update={"method": plan_of(method={"kind": "newton"}).method}), parts, tmp_path / f"{kind}-n"
        )
        found = simulate(plan, parts, tmp_path / kind)
        first, second = (one.package.members[0].model.covariate_weight.detach() for one in (start, found))
        distance[kind] = float((first - second).norm())
    assert distance["scaffold"] < 0.2 * distance["fedavg"]


def test_the_model_of_the_lowest_validation_loss_is_kept(tmp_path: Path) -> None:
    method = {
        "kind": "rounds",
        "rounds": 6,
        "aggregation": {"kind": "fedadam", "server_rate": 1.0},
        "keep": "best_validation",
    }
    plan = plan_of(method=method, minimum_patients=1, minimum_events=1, update_norm=1e4)
    limits = LimitsSettings(public_benchmark=True)
    result = simulate(plan, parts_of(plan), tmp_path, limits=limits)
    losses = [row["validation_loss"] for row in result.history]
    best = int(np.argmin(losses))  # that of a round is of the model that was sent in it
    assert best < 5, "a step size of 1 goes too far in the end; otherwise this shows nothing"
    kept = arrays_of(result.package.members[0].model)
    plan_to_best = plan.model_copy(
        update={"method": plan.method.model_copy(update={"rounds": max(best, 1), "keep": "last"})}
    )
    if best:
        upto = simulate(plan_to_best, parts_of(plan), tmp_path / "upto", limits=limits)
        for name, array in arrays_of(upto.package.members[0].model).items():
            np.testing.assert_array_equal(kept[name], array)


def test_a_personal_model_stays_at_its_site_and_is_judged_beside_the_shared_one(tmp_path: Path) -> None:
    method = {"kind": "rounds", "rounds": 2, "personal_epochs": 3}
    plan = plan_of(method=method, minimum_patients=1, minimum_events=1)
    result = simulate(plan, parts_of(plan), tmp_path, limits=LimitsSettings(public_benchmark=True))
    assert set(result.personal) == set(result.scores) == set(plan.sites)
    assert all("concordance" in one.numbers for one in result.personal.values())
    assert len(list(tmp_path.glob("sites/*/state/*/personal.safetensors"))) == 3


def test_the_package_of_a_network_predicts_like_any_other(tmp_path: Path) -> None:
    from pathoml.infer import predict_package
    from pathoml.packages import load_package

    for loss in ({"kind": "discrete"}, {"kind": "cox", "stratified": True}):
        plan = plan_of(train={"loss": loss})
        parts = parts_of(plan)
        simulate(plan, parts, tmp_path / loss["kind"])
        package = load_package(tmp_path / loss["kind"] / "coordinator" / "package")
        data = pool(parts)
        told = predict_package(package, select_patients(data.cohort, None, data.test))
        assert told.survival.shape == (len(data.test), len(plan.grid))
        assert (np.diff(told.survival, axis=1) <= 1e-12).all()
        events = 1 - told.survival[:, -1].mean()
        assert 0.3 < events < 1.0


def test_weights_of_another_shape_are_not_taken(tmp_path: Path) -> None:
    plan = plan_of()
    parts = parts_of(plan)
    simulate(plan, parts, tmp_path)
    model = build_model(plan, setup_in(tmp_path, plan))
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_arrays_into(model, {**arrays_of(model), "bias": np.zeros(2, dtype=np.float32)})
