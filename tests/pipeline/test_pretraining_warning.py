"""A report says where the encoder has seen the patients' archive before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathoml.config import load_config
from pathoml.encoders.settings import EncoderSettings, Lite0Settings, RegisteredSettings
from pathoml.pipeline.reporting import _pretraining_warnings, report_stage
from pathoml.pipeline.stages import StageContext, evaluate_stage, train_stage
from pathoml.pipeline.study import Study, open_run, open_study
from tests.pipeline.test_run_integrity import TABULAR

pytestmark = pytest.mark.xdist_group("small_cohort")

PHIKON = RegisteredSettings(name="phikon")


@pytest.fixture
def study(copy_of_cohort: Callable[[], Path]) -> Study:
    return open_study(load_config(copy_of_cohort() / "study.yaml"))


def of_tcga(study: Study, encoder: EncoderSettings, *, patients: int, form: str = "TCGA-A1-{:04d}") -> Study:
    """Return the study with another encoder, some of its patients named as TCGA names them."""
    names = study.cohort.patient_id.copy().astype(object)
    names[:patients] = [form.format(number) for number in range(patients)]
    cohort = replace(study.cohort, patient_id=names.astype(np.str_))
    return replace(study, config=study.config.model_copy(update={"encoder": encoder}), cohort=cohort)


def test_patients_of_tcga_under_an_encoder_that_has_seen_tcga_are_warned_of(study: Study) -> None:
    (warning,) = _pretraining_warnings(of_tcga(study, PHIKON, patients=3))
    assert warning.startswith("Encoder phikon was pretrained on slides of TCGA, and 3 of")
    assert "no external test" in warning


def test_what_is_not_known_of_an_encoder_is_not_taken_for_a_clean_record(study: Study) -> None:
    (warning,) = _pretraining_warnings(of_tcga(study, RegisteredSettings(name="uni_v2"), patients=3))
    assert warning.startswith("Whether encoder uni_v2 was pretrained on slides of TCGA is not known")
    assert "ask its authors" in warning


@pytest.mark.parametrize("form", ["TCGA-A1-{:04d}", "TCGA-3C-A{:03d}-01Z-00-DX1", "tcga-a1-{:04d}"])
def test_barcodes_of_patients_and_of_slides_are_recognised(study: Study, form: str) -> None:
    assert len(_pretraining_warnings(of_tcga(study, PHIKON, patients=1, form=form))) == 1


@pytest.mark.parametrize(
    ("encoder", "patients", "form"),
    [
        (PHIKON, 0, ""),
        (PHIKON, 2, "TCGA-LIKE-{:04d}"),
        (PHIKON, 2, "notTCGA-A1-{:04d}"),
        (RegisteredSettings(name="uni_v1"), 3, "TCGA-A1-{:04d}"),
        (Lite0Settings(), 3, "TCGA-A1-{:04d}"),
    ],
)
def test_other_patients_and_other_encoders_are_not_warned_of(
    study: Study, encoder: EncoderSettings, patients: int, form: str
) -> None:
    assert _pretraining_warnings(of_tcga(study, encoder, patients=patients, form=form)) == []


def test_a_model_without_slides_has_no_encoder_to_warn_of(study: Study) -> None:
    changed = of_tcga(study, PHIKON, patients=3)
    assert _pretraining_warnings(replace(changed, config=changed.config.model_copy(update={"slides": None}))) == []


def test_the_report_shows_the_warning(copy_of_cohort: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of_cohort()
    train_stage(open_study(load_config(folder / "study.yaml", TABULAR)), StageContext())
    evaluate_stage(open_run(folder / "run"))
    monkeypatch.setattr("pathoml.pipeline.reporting._pretraining_warnings", lambda _: ["It has seen these slides."])
    assert "It has seen these slides." in report_stage(open_run(folder / "run")).read_text()
