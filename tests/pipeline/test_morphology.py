"""From a run to the kinds of tiles behind its risk."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from pathoml.errors import InputError
from pathoml.pipeline.morphology import study_morphology
from pathoml.pipeline.stages import StageContext
from pathoml.pipeline.study import open_run
from pathoml.prototypes import PrototypeSettings
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")
SETTINGS = PrototypeSettings(prototypes=3, extremes=10)


def test_pages_and_tables_of_a_run(finished: FinishedRun, tmp_path: Path) -> None:
    study = open_run(finished.result.folder.root)
    patients = study.cohort.patient_id.tolist()
    genes = tmp_path / "genes.csv"
    rows = "\n".join(f"{patient},{number},{'mutated' if number % 2 else ''}" for number, patient in enumerate(patients))
    genes.write_text(f"patient_id,TP53,KRAS\n{rows}\n")
    pages = study_morphology(study, tmp_path / "out", SETTINGS, StageContext(), table=genes)
    shares = pd.read_csv(tmp_path / "out" / "shares.csv", dtype={"patient_id": str}).set_index("patient_id")
    assert sorted(shares.index) == sorted(patients)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)
    table = pd.read_csv(tmp_path / "out" / "associations.csv")
    asked = {"survival", "survival within hospitals", "site", "age", "sex", "TP53", "KRAS"}
    assert set(table["with"]) == asked
    assert len(table) == 3 * len(asked)
    for _, family in table.groupby("family"):
        np.testing.assert_allclose(family["q_value"], false_discovery_control(family["p_value"]), rtol=1e-4)
    assert table.groupby("family")["with"].nunique().to_dict() == {
        "covariates": 2, "site": 1, "survival": 2, "table": 2,
    }  # fmt: skip
    assert table.loc[table["with"] == "KRAS", "patients"].max() == len(patients) // 2, "blank cells are not known"
    for page in pages:
        text = page.read_text()
        assert "research use only" in text.lower()
        assert text.count("data:image/jpeg;base64,") >= 9
        assert not re.search(r'(?:src|href)="(?!data:|http://127\.0\.0\.1:8765/slide\?)', text), "nothing from outside"
    first = pages[1].read_text()
    for entry in study.entries[:3]:
        assert f"Slide {entry.slide_id}, patient {entry.patient_id}" in first


def test_pages_call_slides_as_the_viewer_does(finished: FinishedRun, tmp_path: Path) -> None:
    study = open_run(finished.result.folder.root)
    table = pd.read_csv(study.config.slides.manifest, dtype=str)
    hidden = table["slide_id"].tolist()
    table["path"] = [str(study.config.slides.manifest.parent / path) for path in table["path"]]
    table["pseudonym"] = [f"S-{number:04}" for number in range(len(table))]
    table.to_csv(tmp_path / "slides.csv", index=False)
    slides = study.config.slides.model_copy(update={"manifest": tmp_path / "slides.csv"})
    study = replace(study, config=study.config.model_copy(update={"slides": slides}))
    for page in study_morphology(study, tmp_path / "out", SETTINGS, StageContext()):
        words = re.sub(r'src="data:[^"]*"', "", page.read_text())
        assert "name=S-00" in words
        assert not [slide for slide in hidden if re.search(rf"\b{re.escape(slide)}\b", words)]


def test_a_table_without_patients_is_refused(finished: FinishedRun, tmp_path: Path) -> None:
    table = tmp_path / "genes.csv"
    table.write_text("patient,TP53\nP1,2\n")
    with pytest.raises(InputError, match=r"no column 'patient_id' in genes\.csv"):
        study_morphology(open_run(finished.result.folder.root), tmp_path, SETTINGS, StageContext(), table=table)
