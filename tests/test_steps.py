"""Steps of training: parts give the gradient of the whole; killed trainings go on; who comes when, and which tiles."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pathoml import train
from pathoml.covariates import fit_covariates
from pathoml.errors import TrainingError
from pathoml.mil import gradients as gradients_module
from pathoml.mil import pieces
from pathoml.mil.aggregators import AGGREGATORS
from pathoml.mil.batches import BLOCK_TILES, Batch, TrainingPatients, draw_tiles
from pathoml.mil.gradients import forward, join_outcomes, step_gradient, total_loss
from pathoml.mil.objective import Objective, Outcome
from pathoml.mil.objectives import fit_objective
from pathoml.mil.packed import BagOutput, pack
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import fit_projection
from pathoml.mil.room import Room
from pathoml.mil.settings import AbmilSettings, AggregatorSettings, ModelSettings
from pathoml.train import FitContext, TrainingData, fit_member, local_update, step_size
from pathoml.train_settings import (
    CoxLossSettings,
    DeepHitLossSettings,
    DiscreteLossSettings,
    Loss,
    MtlrLossSettings,
    PmfLossSettings,
    TrainSettings,
)
from pathoml.train_state import ResumeFile, TrainState, start_state, take_tensors, tensors_of
from tests.mil.test_aggregators import AggregatorContract
from tests.planted import data, one_fold, saved
from tests.trained import as_if_trained

LOSSES: dict[str, Loss] = {
    "breslow": CoxLossSettings(), "efron": CoxLossSettings(ties="efron"), "strata": CoxLossSettings(stratified=True),
    "ranking": CoxLossSettings(ranking_weight=0.5), "discrete": DiscreteLossSettings(), "pmf": PmfLossSettings(),
    "mtlr": MtlrLossSettings(), "deephit": DeepHitLossSettings(),
}  # fmt: skip
QUICK = TrainSettings(max_epochs=12, patience=12, checkpoint_s=0)
SMALL = ModelSettings(aggregator=AbmilSettings(hidden_dim=8, attention_dim=4), tile_components=4)


def with_places(everything: TrainingData) -> TrainingData:
    features = everything.features
    places = {
        name: np.column_stack([np.zeros(len(bag)), np.arange(len(bag)) // 6, np.arange(len(bag)) % 6]).astype(np.int64)
        for name, bag in features.of_patient.items()
    }
    return replace(everything, features=replace(features, places=places))


ANY_DEVICE = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
    ),
]


def training_patients(settings: TrainSettings, count: int = 40, device: str = "cpu") -> TrainingPatients:
    everything = with_places(data())
    names = everything.cohort.patient_id[:count].tolist()
    chosen = select_patients(everything.cohort, everything.features, names)
    transform = fit_covariates(everything.covariates, chosen.covariates)
    return TrainingPatients(chosen, everything.cohort, fit_projection(chosen.features, 4), transform, settings, device)


def objective_for(loss: Loss) -> Objective:
    everything = data()
    return fit_objective(loss, everything.cohort.time_days, everything.cohort.event)


def model_of(aggregator: AggregatorSettings, out: int) -> PrognosisModel:
    torch.manual_seed(3)
    model = as_if_trained(PrognosisModel(aggregator, ModelShape(4, 1, out))).double().train()
    with torch.no_grad():
        model.covariate_weight.fill_(0.3)
    return model


def in_double(part: Batch) -> Batch:
    return replace(part, tiles=part.tiles.filled(part.tiles.values.double()), covariates=part.covariates.double())


def gradients(model: PrognosisModel) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def with_all_graphs_kept(model, parts, objective, settings) -> tuple[Tensor, dict[str, Tensor]]:
    """What two passes have to equal: every part's graph in memory at once."""
    outputs = [forward(model, part, settings) for part in parts]
    auxiliary = {
        name: sum(one.auxiliary[name] for one in outputs)
        if value.ndim == 1
        else torch.cat([one.auxiliary[name] for one in outputs], dim=1)
        for name, value in outputs[0].auxiliary.items()
    }
    joined = BagOutput(torch.cat([one.logits for one in outputs]), None, None, auxiliary)
    loss = total_loss(joined, join_outcomes([part.outcome for part in parts]), objective)
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("aggregator", AggregatorContract.__subclasses__(), ids=lambda one: one.__name__)
def test_parts_give_the_gradient_of_all_graphs_kept_with_dropout_and_disturbed_tiles(aggregator: type) -> None:
    settings = TrainSettings(tiles_at_once=100, tile_dropout=0.2, feature_noise=0.1)
    parts = [in_double(part) for part in training_patients(settings).parts()]
    assert len(parts) > 5
    with_dropout = {"dropout": 0.3} if "dropout" in type(aggregator.settings).model_fields else {}
    model = model_of(aggregator.settings.model_copy(update=with_dropout), 1)
    objective = objective_for(CoxLossSettings())
    torch.manual_seed(7)
    expected_loss, expected = with_all_graphs_kept(model, parts, objective, settings)
    after = torch.get_rng_state()
    model.zero_grad()
    torch.manual_seed(7)
    loss = step_gradient(model, parts, objective, settings)  # tiles are disturbed: in two passes
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-9)
    assert torch.equal(torch.get_rng_state(), after)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("aggregator", AggregatorContract.__subclasses__(), ids=lambda one: one.__name__)
@pytest.mark.parametrize("piece_tiles", [16, 10**6], ids=["pieces", "whole parts"])
def test_parts_give_the_gradient_of_all_graphs_kept_with_dropout(
    aggregator: type, piece_tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is drawn piece by piece on both sides."""
    monkeypatch.setattr(pieces, "PIECE_TILES", piece_tiles)
    monkeypatch.setattr(pieces, "WHOLE_UP_TO", 0)
    settings = TrainSettings(tiles_at_once=100)
    parts = [in_double(part) for part in training_patients(settings).parts()]
    model, objective = model_of(aggregator.settings, 1), objective_for(CoxLossSettings())
    torch.manual_seed(7)
    _, expected = with_all_graphs_kept(model, parts, objective, settings)
    model.zero_grad()
    torch.manual_seed(7)
    step_gradient(model, parts, objective, settings)
    for name, value in expected.items():
        torch.testing.assert_close(gradients(model)[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("aggregator", AggregatorContract.__subclasses__(), ids=lambda one: one.__name__)
def test_parts_give_the_gradient_of_one_batch_for_every_head_and_patients_without_slides(aggregator: type) -> None:
    """The other side is one batch in one pass, not parts put together as the two passes do."""
    lengths, generator = (30, 0, 25, 0, 0, 12), torch.Generator().manual_seed(1)
    bags = [torch.randn(length, 4, generator=generator, dtype=torch.float64) for length in lengths]
    places = [
        torch.stack([torch.arange(length) * 0, torch.arange(length) // 6, torch.arange(length) % 6], 1)
        for length in lengths
    ]

    def batch(rows: list[int]) -> Batch:
        outcome = Outcome(torch.tensor([row != 3 for row in rows]), torch.tensor([9.0 - row for row in rows]).double())
        own = pack([bags[row] for row in rows], [places[row] for row in rows])
        return Batch(own, torch.ones(len(rows), 1).double(), outcome, tuple(map(str, rows)))

    model, objective = model_of(aggregator.settings, 1), objective_for(CoxLossSettings())
    model.apply(lambda one: setattr(one, "p", 0.0) if isinstance(one, torch.nn.Dropout) else None)
    model.absent.requires_grad_()
    results = []
    for parts in ([batch([0, 1, 2, 3, 4, 5])], [batch([0, 1]), batch([2]), batch([3, 4]), batch([5])]):
        model.zero_grad()
        torch.manual_seed(7)
        results.append((step_gradient(model, parts, objective, TrainSettings()), gradients(model)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-7, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("aggregator", AggregatorContract.__subclasses__(), ids=lambda one: one.__name__)
@pytest.mark.parametrize("kept_mb", [0, 100])
def test_two_passes_draw_the_same_random_numbers_on_a_gpu(aggregator: type, kept_mb: int) -> None:
    settings = TrainSettings(tiles_at_once=100, tile_dropout=0.2, feature_noise=0.1, kept_mb=kept_mb)
    parts = list(training_patients(settings, count=12, device="cuda").parts())
    model, objective = model_of(aggregator.settings, 1).float().to("cuda"), objective_for(CoxLossSettings())
    torch.manual_seed(7)
    _, expected = with_all_graphs_kept(model, parts, objective, settings)
    model.zero_grad()
    torch.manual_seed(7)
    step_gradient(model, parts, objective, settings)
    for name, value in expected.items():
        torch.testing.assert_close(gradients(model)[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_a_state_that_was_taken_down_goes_on_with_the_same_random_numbers(device: str) -> None:
    settings = TrainSettings(batch_patients=8, tile_dropout=0.2)
    patients = training_patients(settings, count=24, device=device)
    objective = objective_for(CoxLossSettings())

    def fresh() -> TrainState:
        torch.manual_seed(2)
        return start_state(model_of(AbmilSettings(hidden_dim=8), 1).float().to(device), settings)

    undisturbed, stopped, again = fresh(), fresh(), fresh()
    for _ in range(2):
        local_update(undisturbed, patients, objective, settings)
    local_update(stopped, patients, objective, settings)
    take_tensors(again, {name: value.clone() for name, value in tensors_of(stopped).items()}, stopped.epoch)
    torch.manual_seed(999)  # the GPU's generator too
    local_update(again, patients, objective, settings)
    near = {"rtol": 0.0, "atol": 0.0} if device == "cpu" else {"rtol": 1e-4, "atol": 1e-6}
    for name, value in undisturbed.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, **near, msg=name)


@pytest.mark.parametrize("aggregator", AggregatorContract.__subclasses__(), ids=lambda one: one.__name__)
@pytest.mark.parametrize("piece_tiles", [16, 10**6], ids=["pieces", "whole parts"])
def test_how_much_is_kept_between_two_passes_changes_no_bit(
    aggregator: type, piece_tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(tiles_at_once=100, tile_dropout=0.2, feature_noise=0.1)
    monkeypatch.setattr(pieces, "PIECE_TILES", piece_tiles)
    patients = training_patients(settings, count=12)
    model, objective = model_of(aggregator.settings, 1).float(), objective_for(CoxLossSettings())
    results = []
    for kept_bytes in (0, 20_000, 10**9):  # nothing, some parts, all
        model.zero_grad()
        torch.manual_seed(7)
        monkeypatch.setattr(gradients_module, "_MB", kept_bytes)
        one_mb = settings.model_copy(update={"kept_mb": 1})
        results.append((step_gradient(model, patients.parts(), objective, one_mb), gradients(model)))
    for loss, found in results[1:]:
        assert torch.equal(loss, results[0][0])
        for name, value in results[0][1].items():
            assert torch.equal(found[name], value), name


def test_what_two_passes_keep_stays_within_its_room() -> None:
    settings = TrainSettings(tiles_at_once=100)
    parts = list(training_patients(settings).parts())
    model = model_of(AbmilSettings(hidden_dim=64, attention_dim=8), 1).float()
    tiles = parts[0].tiles.values
    free = [*model.parameters(), *(part.tiles.values for part in parts)]
    with Room(1e9, free) as plenty:
        forward(model, parts[0], settings)
    spent = 1e9 - plenty.left
    assert 0 < spent < 40 * len(tiles) * 64 * 4
    with Room(spent - 1, free) as scarce:
        forward(model, parts[0], settings)
    assert scarce.is_full
    with Room(spent, free) as just:
        kept = forward(model, parts[0], settings)
    assert not just.is_full
    with just:
        again = forward(model, parts[1], settings)
    assert just.is_full
    assert kept.logits.requires_grad
    assert again.logits.requires_grad


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_give_the_gradient_of_one_batch_for_every_loss(loss: str) -> None:
    objective = objective_for(LOSSES[loss])
    model = model_of(AbmilSettings(hidden_dim=8, dropout=0.0), objective.out)
    whole = [in_double(part) for part in training_patients(TrainSettings()).parts()]
    parts = [in_double(part) for part in training_patients(TrainSettings(tiles_at_once=1)).parts()]
    assert (len(whole), len(parts)) == (1, 40)
    results = []
    for batches in (whole, parts):
        model.zero_grad()
        results.append((step_gradient(model, batches, objective, TrainSettings()), gradients(model)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", AGGREGATORS)
@pytest.mark.filterwarnings("ignore:The operator:UserWarning")
def test_every_aggregator_trains_in_parts_from_read_tiles(kind: str, tmp_path: Path) -> None:
    everything = with_places(data(60))
    settings = TrainSettings(max_epochs=2, tiles_at_once=200, resident_gb=0)
    model = ModelSettings.model_validate({"aggregator": {"kind": kind}, "tile_components": 4})
    member, history = fit_member(everything, one_fold(everything), model, settings)
    assert len(history) == 3
    assert np.isfinite([row["validation_loss"] for row in history]).all()
    saved(member, tmp_path)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_ranks(loss: str) -> None:
    everything = data()
    settings = TrainSettings(loss=LOSSES[loss], max_epochs=100, patience=100)
    _, history = fit_member(everything, one_fold(everything), SMALL, settings)
    assert max(row["validation_concordance"] for row in history) > 0.7


def fitted(settings: TrainSettings, folder: Path, resume: ResumeFile | None = None) -> dict[str, bytes]:
    everything = data()
    return saved(fit_member(everything, one_fold(everything), SMALL, settings, FitContext(resume=resume))[0], folder)


@pytest.mark.parametrize("changes", [{"batch_patients": 16}, {"max_tiles": 10}, {"tile_dropout": 0.3}, {}])
def test_kept_and_read_tiles_give_the_same_bytes(changes: dict, tmp_path: Path) -> None:
    kept = fitted(QUICK.model_copy(update=changes), tmp_path / "kept")
    read = fitted(QUICK.model_copy(update={**changes, "resident_gb": 0.0}), tmp_path / "read")
    assert kept == read


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 5, 11])
@pytest.mark.parametrize("changes", [{"batch_patients": 16, "event_balanced": True, "schedule": "cosine"}, {}])
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(
    stop_at: int, changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = QUICK.model_copy(update=changes)
    undisturbed = fitted(settings, tmp_path / "undisturbed")
    record = ResumeFile(tmp_path / "fold.resume", "digest", 0.0)

    def dying(state, *rest):
        if state.epoch == stop_at:
            raise Killed
        return local_update(state, *rest)

    monkeypatch.setattr(train, "local_update", dying)
    with pytest.raises(Killed):
        fitted(settings, tmp_path / "never", record)
    epochs = []

    def counting(state, *rest):
        epochs.append(state.epoch)
        return local_update(state, *rest)

    monkeypatch.setattr(train, "local_update", counting)
    torch.manual_seed(12345)  # what happens outside does not matter
    assert fitted(settings, tmp_path / "resumed", record) == undisturbed
    assert epochs[0] == stop_at


@pytest.mark.parametrize("content", [b"", b"not a record", None])
def test_a_record_of_another_training_or_a_broken_one_is_not_taken(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "fold.resume"
    if content is None:
        model = model_of(AbmilSettings(), 1)
        ResumeFile(path, "another", 0.0).write(start_state(model, QUICK), train.TrainProgress([], 0.0, 0, {}))
    else:
        path.write_bytes(content)
    assert fitted(QUICK, tmp_path / "new", ResumeFile(path, "digest", 1e9)) == fitted(QUICK, tmp_path / "plain")


TRAINING = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from pathoml.train_settings import TrainSettings
from pathoml.train_state import ResumeFile
from tests.test_steps import fitted
settings = TrainSettings(max_epochs=150, patience=150, checkpoint_s=0, batch_patients=16)
fitted(settings, Path(sys.argv[1]) / "saved", ResumeFile(Path(sys.argv[1]) / "fold.resume", "digest", 0.0))
"""


@pytest.mark.slow
def test_row_28_a_killed_training_goes_on_exactly(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING.format(root=str(Path(__file__).parents[1]))]
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    subprocess.run([*command, tmp_path / "undisturbed"], check=True)
    process = subprocess.Popen([*command, tmp_path / "killed"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "fold.resume").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "saved").exists()
    subprocess.run([*command, tmp_path / "killed"], check=True)
    found, expected = (
        (tmp_path / name / "saved" / "model.safetensors").read_bytes() for name in ("killed", "undisturbed")
    )
    assert found == expected


def test_a_loss_that_is_not_finite_stops_with_the_patient_named() -> None:
    everything = data()
    fold = one_fold(everything)
    bad = fold.train[4]
    bags = dict(everything.features.of_patient)
    bags[bad] = np.where(np.arange(6) == 0, np.nan, bags[bad]).astype(np.float32)
    clean = fit_projection([bag for name, bag in bags.items() if name != bad], 4)
    settings = TrainSettings(max_epochs=3)
    chosen = select_patients(everything.cohort, PatientFeatures(bags, everything.features.spec, "x"), fold.train)
    transform = fit_covariates(everything.covariates, chosen.covariates)
    patients = TrainingPatients(chosen, everything.cohort, clean, transform, settings, "cpu")
    model = as_if_trained(PrognosisModel(SMALL.aggregator, ModelShape(4, 1, 1)))
    with pytest.raises(TrainingError, match=bad):
        local_update(start_state(model, settings), patients, objective_for(CoxLossSettings()), settings)


@pytest.mark.parametrize(("count", "wanted"), [(100, 99), (1000, 1), (1000, 64), (5000, 1234), (65, 64), (3, 2)])
def test_drawn_tiles_are_so_many_none_twice_and_mostly_neighbours(count: int, wanted: int) -> None:
    dealer = torch.Generator().manual_seed(0)
    rows = draw_tiles(count, wanted, dealer)
    assert len(np.unique(rows)) == len(rows) == wanted
    assert rows.min() >= 0
    assert rows.max() < count
    assert (np.diff(rows) > 0).all()
    assert (np.diff(rows) != 1).sum() <= wanted // BLOCK_TILES + 2


def test_every_tile_is_drawn_about_as_often() -> None:
    dealer = torch.Generator().manual_seed(1)
    times = np.zeros(700)
    for _ in range(4000):
        times[draw_tiles(700, 128, dealer)] += 1
    share = times / times.mean()
    assert share.min() > 0.75
    assert share.max() < 1.25


def test_balanced_steps_are_half_events_and_everyone_comes() -> None:
    settings = TrainSettings(batch_patients=10, event_balanced=True)
    patients = training_patients(settings, count=37)
    event = patients.outcome.event
    steps = list(patients.steps(torch.Generator().manual_seed(0)))
    names = [name for parts in steps for part in parts for name in part.patient_id]
    assert len(set(names)) == 37
    for parts in steps[:-1]:
        assert int(join_outcomes([part.outcome for part in parts]).event.sum()) == 5
    assert 0 < int(event.sum()) < 37


def test_balanced_steps_are_half_events_though_one_step_would_hold_everybody() -> None:
    patients = training_patients(TrainSettings(batch_patients=200, event_balanced=True), count=37)
    (step,) = patients.steps(torch.Generator().manual_seed(0))
    assert step.outcome.event.double().mean() == 0.5
    assert 2 * int(patients.outcome.event.sum()) != 37
    assert {name for part in step for name in part.patient_id} == set(next(iter(patients.parts())).patient_id)


def test_the_next_step_is_read_while_the_model_works_on_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = training_patients(TrainSettings(batch_patients=8, resident_gb=0))
    begun, read = [], TrainingPatients._batch

    def noting(self, rows, drawn):
        begun.append(tuple(rows))
        return read(self, rows, drawn)

    monkeypatch.setattr(TrainingPatients, "_batch", noting)
    seen = 0
    for parts in patients.steps(torch.Generator().manual_seed(0)):
        (batch,) = parts
        assert len(batch) == 8
        seen += 1
        deadline = time.monotonic() + 30
        while len(begun) < min(seen + 1, 5) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(begun) == min(seen + 1, 5)
    assert seen == 5
    assert len(set(begun)) == 5, "each is read once"


def test_training_and_validation_share_the_memory_that_may_be_used() -> None:
    bytes_of_all = 40 * 30 * 4 * 4
    settings = TrainSettings(resident_gb=1.5 * bytes_of_all / 1e9)
    everything = with_places(data())
    first = training_patients(settings)
    chosen = select_patients(everything.cohort, everything.features, everything.cohort.patient_id[40:80].tolist())
    transform = fit_covariates(everything.covariates, chosen.covariates)
    same = chosen, everything.cohort, fit_projection(chosen.features, 4), transform
    alone, beside = (TrainingPatients(*same, one, "cpu") for one in (settings, first.left_by()))
    assert first.parts().is_kept
    assert alone.parts().is_kept
    assert not beside.parts().is_kept
    for kept, read in zip(alone.parts(), beside.parts(), strict=True):
        assert torch.equal(kept.tiles.values, read.tiles.values)
        assert torch.equal(kept.tiles.offsets, read.tiles.offsets)
        assert torch.equal(kept.tiles.places, read.tiles.places)


@pytest.mark.parametrize("loss", [CoxLossSettings(), CoxLossSettings(stratified=True)], ids=["together", "strata"])
def test_a_step_whose_patients_cannot_be_compared_leaves_the_model_as_it_is(loss: Loss) -> None:
    """Momentum and weight decay would move it, in every epoch whose last step is one patient."""
    settings = TrainSettings(loss=loss, batch_patients=38, weight_decay=0.1)
    patients, objective = training_patients(settings, count=38), objective_for(loss)
    state = start_state(model_of(SMALL.aggregator, 1).float(), settings)
    local_update(state, patients, objective, settings)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    event = torch.nonzero(patients.outcome.event)[:, 0]
    last = event[patients.outcome.time_days[event].argmax()]  # at whose event nobody else is at risk, or nobody at all
    alone = patients.one_by_one([(int(last), 0)])
    assert not objective.tells(alone.outcome)
    patients.steps = lambda _: iter([alone])
    assert local_update(state, patients, objective, settings) == 0
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_whom_a_loss_can_compare() -> None:
    def outcome(event: list[int], days: list[float], stratum: list[int]) -> Outcome:
        return Outcome(torch.tensor(event) == 1, torch.tensor(days, dtype=torch.float64), torch.tensor(stratum))

    plain, strata = (objective_for(CoxLossSettings(stratified=one)) for one in (False, True))
    ranked = objective_for(CoxLossSettings(stratified=True, ranking_weight=1.0))
    apart = outcome([1, 0, 1], [5, 9, 7], [0, 1, 2])
    assert (plain.tells(apart), strata.tells(apart), ranked.tells(apart)) == (True, False, True)
    together = outcome([0, 1, 0], [5, 7, 9], [0, 2, 2])
    assert (plain.tells(together), strata.tells(together)) == (True, True)
    for nothing in (outcome([0, 0], [5, 9], [0, 0]), outcome([0, 1], [5, 9], [0, 0]), outcome([], [], [])):
        assert not plain.tells(nothing)
    assert plain.tells(outcome([1, 1], [5, 5], [0, 0])), "ties"
    assert objective_for(DiscreteLossSettings()).tells(outcome([0], [5], [0]))


def test_the_loss_of_an_epoch_is_a_mean_over_events_however_they_are_dealt() -> None:
    model = model_of(SMALL.aggregator, 1).float()
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()

    def loss_of_epoch(count: int) -> float:
        settings = TrainSettings(batch_patients=8, learning_rate=1e-12)
        patients = training_patients(settings, count=count)
        steps = list(patients.steps(torch.Generator().manual_seed(5)))
        state = start_state(model, settings)
        patients.steps = lambda _: iter(steps)
        found = local_update(state, patients, objective, settings)
        each = [(float(objective.loss(torch.zeros(len(one.outcome.event), 1), one.outcome)), one) for one in steps]
        told = [(value, objective.denominator(one.outcome)) for value, one in each if objective.tells(one.outcome)]
        assert found == pytest.approx(sum(value * weight for value, weight in told) / sum(w for _, w in told), rel=1e-5)
        return found

    objective = objective_for(CoxLossSettings())
    assert loss_of_epoch(33) == pytest.approx(loss_of_epoch(32), rel=0.1)


def test_a_fold_whose_validation_patients_cannot_be_compared_is_refused() -> None:
    everything = data(60)
    fold = one_fold(everything)
    site = np.array([f"hospital {number}" for number in range(60)])
    cohort = everything.cohort
    site[cohort.rows_of(fold.train)] = "a"
    apart = replace(everything, cohort=replace(cohort, site=site))
    settings = TrainSettings(loss=CoxLossSettings(stratified=True), max_epochs=2)
    with pytest.raises(TrainingError, match=r"no two of its \d+ validation patients can be compared"):
        fit_member(apart, fold, SMALL, settings)
    everywhere = replace(everything, cohort=replace(cohort, site=np.array([str(number) for number in range(60)])))
    with pytest.raises(TrainingError, match=r"no two of its \d+ training patients can be compared"):
        fit_member(everywhere, fold, SMALL, settings)


def test_a_validation_loss_that_is_not_finite_names_its_patient() -> None:
    everything = data(60)
    fold = one_fold(everything)
    spoilt = fold.validation[1]
    bags = dict(everything.features.of_patient)
    bags[spoilt] = np.full_like(bags[spoilt], np.nan)
    broken = replace(everything, features=replace(everything.features, of_patient=bags))
    with pytest.raises(TrainingError, match=rf"patient\(s\) {spoilt}"):
        fit_member(broken, fold, SMALL, QUICK)


def test_an_epoch_sees_everyone_once_in_another_order_each_time() -> None:
    patients = training_patients(TrainSettings(batch_patients=7))
    dealer = torch.Generator().manual_seed(0)
    orders = [
        [name for parts in patients.steps(dealer) for part in parts for name in part.patient_id] for _ in range(2)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(set(orders[0]))
    assert orders[0] != orders[1]


def test_the_step_size_rises_and_falls() -> None:
    settings = TrainSettings(learning_rate=0.1, warmup_epochs=3, max_epochs=13, schedule="cosine")
    sizes = [step_size(epoch, settings) for epoch in range(13)]
    assert sizes[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert all(later < earlier for earlier, later in pairwise(sizes[3:]))
    assert sizes[-1] < 0.01
    assert {step_size(epoch, TrainSettings()) for epoch in (0, 5, 100)} == {0.01}


def test_gradients_are_shortened_to_the_norm_asked_for() -> None:
    settings = TrainSettings(clip_norm=1e-3)
    patients = training_patients(settings)
    model = as_if_trained(PrognosisModel(SMALL.aggregator, ModelShape(4, 1, 1)))
    state = start_state(model, settings)
    local_update(state, patients, objective_for(CoxLossSettings()), settings)
    norm = torch.sqrt(sum(one.grad.square().sum() for one in model.parameters() if one.grad is not None))
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_several_members_differ_by_seed_and_average(tmp_path: Path) -> None:
    from pathoml.fold_fitting import FitPlan, fit_fold
    from pathoml.infer import predict_members
    from tests.planted import DAYS, TEMPLATE

    everything = data()
    fold = one_fold(everything)
    plan = FitPlan(SMALL, QUICK.model_copy(update={"members": 3}), TEMPLATE, tmp_path)
    package = fit_fold(everything, fold, plan)
    assert len({member.fold for member in package.members}) == len(package.members) == 3
    patients = select_patients(everything.cohort, everything.features, fold.test)
    table, survival = predict_members(package.members, patients, np.array(DAYS))
    alone = [predict_members([member], patients, np.array(DAYS)) for member in package.members]
    standard = [
        (own["risk"] - member.risk_centre) / member.risk_scale
        for member, (own, _) in zip(package.members, alone, strict=True)
    ]
    np.testing.assert_allclose(table["risk"], np.mean(standard, axis=0))
    np.testing.assert_allclose(survival, np.mean([one for _, one in alone], axis=0))
    assert not list(tmp_path.glob("*.resume"))


def test_stopping_on_concordance_keeps_its_best_epoch() -> None:
    everything = data()
    settings = TrainSettings(max_epochs=30, patience=30, stop_on="concordance")
    member, history = fit_member(everything, one_fold(everything), SMALL, settings)
    best = max(row["validation_concordance"] for row in history)
    patients = select_patients(everything.cohort, everything.features, one_fold(everything).validation)
    from tests.planted import concordance

    assert concordance(member, everything, patients.patient_id) == pytest.approx(best, abs=1e-9)
