"""What a newcomer stumbled over: reversed event codes, slides that are not there, dark slides, encoders given other tiles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pathoml.cli import app
from pathoml.config import load_config
from pathoml.errors import CohortError
from pathoml.pipeline.checking import check
from pathoml.pipeline.slide_facts import slide_facts
from pathoml.pipeline.stages import StageContext, extract_stage
from pathoml.pipeline.study import open_study
from pathoml.testing.pyramid import write_pyramid
from tests.small_cohort import write_config

pytestmark = pytest.mark.xdist_group("small_cohort")


@pytest.fixture
def study(copy_of_cohort: Callable[[], Path]) -> Path:
    return write_config(copy_of_cohort())


def words(*parts: object) -> str:
    return "\n".join(map(str, parts))


def test_check_spells_out_what_counts_as_an_event(study: Path) -> None:
    facts = dict(check(study).facts)
    assert "'1' is an event" in facts["Coding"]
    assert facts["Events"].split()[0] in facts["Coding"]


def test_a_column_of_censoring_taken_for_events_is_warned_of(study: Path) -> None:
    table = pd.read_csv(study.parent / "cohort.csv", dtype=str)
    event = load_config(study).cohort.event
    table.rename(columns={event: "Censorship"}).to_csv(study.parent / "cohort.csv", index=False)
    said = words(*check(study, ["cohort.event=Censorship"]).warnings)
    assert "event_codes" in said
    assert "Censorship" in said


def point(study: Path, path: Path | str, rows: slice = slice(0, 1)) -> list[str]:
    """Let rows of the manifest name another file; return their slides."""
    table = pd.read_csv(study.parent / "slides.csv", dtype=str)
    ids = table.loc[table.index[rows], "slide_id"].tolist()
    table.loc[table.index[rows], "path"] = [str(path).format(one) for one in ids]
    table.to_csv(study.parent / "slides.csv", index=False)
    return ids


def test_a_slide_that_is_not_there_costs_itself_alone(study: Path) -> None:
    (gone,) = point(study, "gone.tif")
    assert "gone.tif" in words(*check(study).problems)
    slides = study.parent / "slides.csv"
    pd.read_csv(slides, dtype=str).head(3).to_csv(slides, index=False)
    outcomes = extract_stage(open_study(load_config(study)), StageContext())
    assert [one.slide_id for one in outcomes if one.code == "NOT_FOUND"] == [gone]
    assert all(one.has_bag for one in outcomes if one.slide_id != gone)


def test_a_folder_without_any_of_the_slides_is_refused(study: Path) -> None:
    point(study, "elsewhere/{}.tif", slice(None))
    with pytest.raises(CohortError) as raised:
        open_study(load_config(study))
    assert "no such file" in words(*raised.value.problems)


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    path = tmp_path / "dark.tif"
    write_pyramid(path, np.full((700, 900, 3), 25, dtype=np.uint8), mpp=0.5)
    return path


def test_check_with_slides_finds_the_dark_one(study: Path, dark: Path) -> None:
    (first,) = point(study, dark)
    said = words(*check(study, open_slides=True).problems)
    assert "NOT_BRIGHTFIELD" in said
    assert first in said


def test_info_says_that_a_dark_slide_cannot_be_used(dark: Path) -> None:
    assert dict(slide_facts(dark))["usable"].startswith("no, NOT_BRIGHTFIELD")


def test_check_names_the_line_of_an_encoder_that_takes_other_tiles(study: Path) -> None:
    said = words(*check(study, ["encoder={kind: registered, name: uni_v2}"]).problems)
    assert "tiling.tile_px: 256" in said


def test_the_version_is_shown() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "pathoml")
