"""Where paths of what is read start."""

from pathlib import Path

from pathoml.config import load_config

CONFIG = """
name: x
data: archive
output: run
cohort: {table: cohort.csv, time: t, time_unit: days, event: e}
splits: {schemes: [{kind: files, folder: folds}]}
"""


def test_what_is_read_starts_from_the_data_folder_and_what_is_written_from_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "study.yaml")
    assert config.cohort.table == tmp_path / "archive" / "cohort.csv"
    assert config.splits.schemes[0].folder == tmp_path / "archive" / "folds"
    assert config.output == tmp_path / "run"


def test_the_data_folder_can_be_given_on_the_command_line_and_is_no_part_of_the_digest(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG)
    here, there = (load_config(tmp_path / "study.yaml", given) for given in ((), ("data=/elsewhere",)))
    assert there.cohort.table == Path("/elsewhere/cohort.csv")
    assert there.digest == here.digest
