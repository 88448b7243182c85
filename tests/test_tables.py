"""Tables as text: nothing is guessed, nothing is shifted."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.errors import CohortError, PathomlError
from pathoml.tables import missing_columns_message, name_columns, read_text_table

TEXT = "id,site,grade\n05,E2,1e3\nNA,,3.50\n"


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_cells_stay_the_text_that_stands_in_the_file(tmp_path: Path) -> None:
    table = read_text_table(write(tmp_path, TEXT))
    assert table.to_dict("list") == {"id": ["05", "NA"], "site": ["E2", ""], "grade": ["1e3", "3.50"]}


def test_blanks_around_names_and_cells_are_stripped(tmp_path: Path) -> None:
    table = read_text_table(write(tmp_path, " id , site\n 05 , a b \n"))
    assert table.to_dict("list") == {"id": ["05"], "site": ["a b"]}


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    assert list(read_text_table(write(tmp_path, b"\xef\xbb\xbfid,time\nMei\xc3\x9fner,1\n"))) == ["id", "time"]


def test_umlauts_survive(tmp_path: Path) -> None:
    assert read_text_table(write(tmp_path, "id,x\nMeißner,1\n"))["id"].tolist() == ["Meißner"]


@pytest.mark.parametrize("name", ["t.tsv", "t.txt"])
def test_tabs_separate_tsv_and_txt(tmp_path: Path, name: str) -> None:
    table = read_text_table(write(tmp_path, TEXT.replace(",", "\t"), name))
    pd.testing.assert_frame_equal(table, read_text_table(write(tmp_path, TEXT)))


def test_a_zipped_table_reads_as_the_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", TEXT)
    pd.testing.assert_frame_equal(read_text_table(tmp_path / "t.csv.zip"), read_text_table(write(tmp_path, TEXT)))


def test_parquet_equals_csv(tmp_path: Path) -> None:
    typed = pd.DataFrame({"id": ["05", "06"], "age": [61.5, np.nan], "event": [1, 0], "site": ["E2", None]})
    typed.to_parquet(tmp_path / "t.parquet")
    typed.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(read_text_table(tmp_path / "t.parquet"), read_text_table(tmp_path / "t.csv"))


def test_parquet_with_nullable_and_category_columns_reads_as_text(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": pd.Categorical(["x", None])})
    table.to_parquet(tmp_path / "t.parquet")
    assert read_text_table(tmp_path / "t.parquet").to_dict("list") == {"a": ["1", ""], "b": ["x", ""]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"id;time\n1;3,5\n", "separated by semicolons; save it with commas"),
        ("t.csv", b"id;time\n1;3\n", "separated by semicolons"),
        ("t.csv", b"id,time\n", "the table has no rows"),
        ("t.csv", b"", "cannot be read as a table"),
        ("t.csv", "id,x\nMüller,1\n".encode("latin-1"), "cannot be read as a table.*utf-8"),
        ("t.csv", b"id,x\n1,2\n3,4,5\n", "a row has more cells than the header .*line 3"),
        ("t.xlsx", b"PK", r"t\.xlsx: not a \.csv, \.tsv or \.parquet table"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_text_table(write(tmp_path, content, name))


def test_a_column_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="id stand more than once; rename"):
        read_text_table(write(tmp_path, "id,time,id\n1,2,3\n"))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"gone\.csv: no such table"):
        read_text_table(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    "rows", ["p1,3,5,1\np2,4,5,0\n", "p1,3,1,\np2,4,0,\n"], ids=["decimal commas", "trailing commas"]
)
def test_rows_with_a_cell_more_than_the_header_are_never_shifted(tmp_path: Path, rows: str) -> None:
    with pytest.raises(CohortError, match="more cells than"):
        read_text_table(write(tmp_path, "patient_id,time,event\n" + rows))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.zip"])
def test_a_damaged_file_is_a_cohort_error(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, b"neither this nor that", name)
    with pytest.raises(PathomlError, match="cannot be read as a table"):
        read_text_table(path)


def test_columns_are_named_without_those_that_have_no_name_and_many_by_their_ending() -> None:
    genes = [f"G{number}_rnaseq" for number in range(200)]
    table = pd.DataFrame(columns=["", "case_id", "time_days", "age_days", *genes])
    assert name_columns(table) == "case_id, time_days, age_days, *_rnaseq (200)"
    assert missing_columns_message(Path("t.csv"), table, "case") == (
        "no column 'case' in t.csv; did you mean 'case_id'? it has: case_id, time_days, age_days, *_rnaseq (200)"
    )
    odd = pd.DataFrame(columns=[f"p{number}_e1" for number in range(5)])
    assert name_columns(odd) == "p0_e1, p1_e1, p2_e1, p3_e1, p4_e1"
    many = pd.DataFrame(columns=[f"c{number}" for number in range(20)])
    assert name_columns(many).endswith("c11, ... (20 in all)")
