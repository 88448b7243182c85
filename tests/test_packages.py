"""A package: everything, nothing more, and nothing altered."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pathoml.bags import FeatureSpec
from pathoml.covariates import BlockCovariate, CategoricalCovariate, NumericCovariate, fit_covariates
from pathoml.errors import OutputError, PackageError
from pathoml.infer import predict_package
from pathoml.mil.objectives import CoxObjective, DiscreteObjective
from pathoml.mil.patients import Patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import fit_projection
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings
from pathoml.packages import Member, Package, join_packages, load_package, save_package
from tests.trained import as_if_trained

NAMES = tuple(f"TCGA-AA-{i:04d}" for i in range(12))
SPEC = FeatureSpec("lite0", "w" * 64, 0.5, 224, "float32", "s" * 64)
SUMMARY = {"endpoint": "overall survival", "patients": 12, "events": 6, "sites": 2, "config_digest": "c" * 64}
COVARIATES = (
    NumericCovariate(column="age"),
    CategoricalCovariate(column="sex"),
    BlockCovariate(name="omics", columns="g*", components=2),
)


def patients() -> Patients:
    rng = np.random.default_rng(0)
    raw = pd.DataFrame(rng.normal(size=(12, 3)), columns=["g1", "g2", "g3"])
    raw["age"], raw["sex"] = rng.normal(60, 10, 12), np.array(list("fm") * 6, dtype=object)
    features = tuple(rng.normal(size=(count, 5)).astype(np.float16) for count in range(1, 13))
    return Patients(NAMES, features, raw)


def member(kind: str, seed: int = 0) -> Member:
    torch.manual_seed(seed)
    someone, rng = patients(), np.random.default_rng(seed)
    transform, projection = fit_covariates(COVARIATES, someone.covariates), fit_projection(someone.features or (), 4)
    time, event = rng.exponential(500, 12), np.tile([1, 0], 6)
    objective: Any = DiscreteObjective(np.array([0.0, 100.1, 700 / 3, 900.0]))
    aggregator: Any = MeanPoolSettings()
    if kind == "cox":
        objective, aggregator = CoxObjective().calibrated(rng.normal(size=(12, 1)), time, event), AbmilSettings()
    model = as_if_trained(
        PrognosisModel(aggregator, ModelShape(4, len(transform.names), objective.out, transform.groups))
    ).eval()
    numbers = {"risk_centre": 0.1 / 3, "risk_scale": 1.7, "risk_cutoff": 0.2, "slide_centre": (0.3,) * objective.out}
    return Member("kfold-0", aggregator, model, projection, transform, objective, **numbers)


def package(kind: str = "cox") -> Package:
    days = tuple(np.linspace(10.1, 1000, 7).tolist())
    return Package((member(kind), member(kind, 1)), SPEC, {"tiling": {"target_mpp": 0.5}}, days, SUMMARY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_package(tmp_path / "package", package())
    return tmp_path / "package"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", ["cox", "discrete"])
def test_a_saved_package_predicts_bit_by_bit_the_same(tmp_path: Path, kind: str) -> None:
    save_package(tmp_path / "p", package(kind))
    loaded = load_package(tmp_path / "p")
    expected, found = predict_package(package(kind), patients()), predict_package(loaded, patients())
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
    np.testing.assert_array_equal(found.survival, expected.survival)
    assert (loaded.feature_spec, loaded.recipe, loaded.summary) == (SPEC, package().recipe, SUMMARY)
    assert not any(one.model.training for one in loaded.members)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_package(tmp_path / name, package())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_there_are_tensors_json_and_a_card_and_no_pickle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "model.json", "model.safetensors"]


def test_it_holds_no_patient_and_no_path_of_this_machine(folder: Path) -> None:
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"TCGA-AA" not in content
    for secret in (str(folder), str(Path.home()), "/tmp"):
        assert secret.encode() not in content


def test_the_card_and_the_json_say_research_use_only(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    assert "Research use only" in card
    assert "not for decisions about patients" in card
    assert json.loads((folder / "model.json").read_text())["notice"] == "research use only"


def test_the_card_says_what_the_model_takes_and_predicts(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    for fact in (
        "overall survival",
        "12 patients, 6 events, 2 hospital(s)",
        "age, sex=m, omics_1, omics_2",
        "224 px tiles at 0.5",
    ):
        assert fact in card


def test_altered_tensors_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(PackageError, match=r"model\.safetensors does not belong to model\.json .*SHA-256 differs"):
        load_package(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PackageError, match=f"(not a model package|cannot be read as a package).*{name}"):
        load_package(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "package version 1, this pathoml reads pathoml-package version 2"),
        ({"format": "other"}, "does not say 'pathoml-package'"),
    ],
)
def test_another_format_or_version_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(PackageError, match=message):
        load_package(folder)


def test_text_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text("{")
    with pytest.raises(PackageError, match="not a model package"):
        load_package(folder)


@pytest.mark.parametrize("change", ["a cut-off", "a shape", "a member gone", "a key gone", "a list"])
def test_an_altered_json_is_refused(folder: Path, change: str) -> None:
    path = folder / "model.json"
    description = json.loads(path.read_text())
    if change == "a cut-off":
        description["members"][0]["risk_cutoff"] = -5.0
    elif change == "a shape":
        description["members"][0]["shape"]["tile_dim"] = 9
    elif change == "a member gone":
        description["members"].pop()
    elif change == "a key gone":
        del description["members"]
    path.write_text(json.dumps([description] if change == "a list" else description))
    with pytest.raises(PackageError, match="package"):
        load_package(folder)


def test_an_older_package_is_replaced_whole(folder: Path) -> None:
    (folder / "leftover.txt").write_text("x")
    save_package(folder, package("discrete"))
    assert isinstance(load_package(folder).members[0].objective, DiscreteObjective)
    assert not (folder / "leftover.txt").exists()


def test_numbers_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    broken = replace(package(), members=(replace(member("cox"), risk_scale=float("nan")),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_package(tmp_path / "p", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        save_package(tmp_path / "file" / "package", package())


def test_a_failed_write_keeps_the_old_package_and_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_package(folder, package("discrete"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    load_package(folder)


def test_joined_packages_hold_all_members() -> None:
    one, two = (replace(package(), members=(member("cox", seed),)) for seed in (0, 1))
    joined = join_packages([one, two])
    np.testing.assert_array_equal(
        predict_package(joined, patients()).table["risk"], predict_package(package(), patients()).table["risk"]
    )
