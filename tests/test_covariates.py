"""Covariates filled, scaled, coded and reduced, from training rows alone."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pathoml.cohort import BlockCovariate, CategoricalCovariate, NumericCovariate
from pathoml.covariates import (
    CovariateTransform,
    FittedBlock,
    FittedNumeric,
    UnseenWord,
    fit_covariates,
    transform_from_json,
    unseen_words,
)
from pathoml.errors import PackageError
from pathoml.tables import parse_numbers

AGE, SEX = NumericCovariate(column="age"), CategoricalCovariate(column="sex")
GENES = BlockCovariate(name="genes", columns="*_rna", components=4)


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, 5)) @ rng.normal(size=(5, 9)) + rng.normal(3, 0.1, (rows, 9))
    raw = pd.DataFrame(mixed, columns=[f"g{i}_rna" for i in range(9)])
    raw["age"] = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(60, 10, rows))
    raw["sex"] = rng.choice(["f", "m", ""], rows)
    return raw


def same(first: CovariateTransform, second: CovariateTransform, raw: pd.DataFrame) -> bool:
    return bool(np.array_equal(first.apply(raw), second.apply(raw)))


def test_a_number_is_filled_with_the_median_and_standardised() -> None:
    raw = table()
    values = raw["age"].to_numpy()
    filled = np.where(np.isnan(values), np.nanmedian(values), values)
    found = fit_covariates((AGE,), raw).apply(raw)[:, 0]
    np.testing.assert_allclose(found, (filled - filled.mean()) / filled.std(), rtol=0, atol=1e-12)


def test_a_new_patient_is_scaled_by_the_training_patients() -> None:
    part = fit_covariates((AGE,), pd.DataFrame({"age": [1.0, 2.0, 3.0, np.nan]})).parts[0]
    assert isinstance(part, FittedNumeric)
    assert (part.fill, part.mean) == (2.0, 2.0)
    new = part.apply(pd.DataFrame({"age": [2.0 + part.scale, np.nan]}))
    np.testing.assert_allclose(new[:, 0], [1.0, 0.0], atol=1e-15)


def test_a_word_gets_a_column_for_each_level_but_the_first_and_missing_is_a_level() -> None:
    raw = pd.DataFrame({"sex": np.array(["m", "", "f", "m"], dtype=object)})
    transform = fit_covariates((SEX,), raw)
    assert transform.names == ["sex=f", "sex=m"]
    assert transform.apply(raw).tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]


def words(*cells: str, column: str = "sex") -> pd.DataFrame:
    return pd.DataFrame({column: np.array(cells, dtype=object)})


@pytest.mark.parametrize("spelling", ["", "NA", "na", "nan", "N/A", "None", "null"])
def test_a_missing_word_is_spelt_as_a_missing_number_is(spelling: str) -> None:
    assert parse_numbers(pd.Series([spelling]))[1].tolist() == [True]
    transform = fit_covariates((SEX,), words("m", spelling, "f"))
    assert transform.names == ["sex=f", "sex=m"]
    assert transform.apply(words(spelling, "", "f")).tolist() == [[0, 0], [0, 0], [1, 0]]


def test_a_word_that_training_never_lacked_is_filled_with_the_most_frequent_level() -> None:
    transform = fit_covariates((SEX,), words("f", "m", "m"))
    assert transform.apply(words("NA", "", "f")).tolist() == [[1], [1], [0]]


def test_a_level_not_seen_in_training_counts_as_missing() -> None:
    complete, with_blanks = (fit_covariates((SEX,), words("f", "m", "m", *blanks)) for blanks in ((), ("", "")))
    assert complete.apply(words("x", "m", "f")).tolist() == [[1], [1], [0]]
    assert with_blanks.apply(words("x", "")).tolist() == [[0, 0], [0, 0]]


def test_levels_equally_frequent_are_filled_with_the_first_in_the_alphabet() -> None:
    one, other = (fit_covariates((SEX,), words(*cells)) for cells in (("b", "a", "b", "a"), ("a", "b", "a", "b")))
    assert one == other
    assert one.apply(words("x")).tolist() == one.apply(words("a")).tolist()


def test_words_that_no_member_saw_are_found_with_what_is_known() -> None:
    first, second = (fit_covariates((AGE, SEX), words(*seen).assign(age=60.0)) for seen in (("f", "m"), ("m", "", "d")))
    raw = words("d", "Male", "NA", "m").assign(age=60.0)
    assert unseen_words([first, second], raw) == [UnseenWord(1, "sex", "Male", ("d", "f", "m"))]
    assert [one.value for one in unseen_words([first], raw)] == ["d", "Male"]


def test_a_word_of_one_level_gives_no_column() -> None:
    raw = pd.DataFrame({"sex": np.array(["f", "f"], dtype=object)})
    assert fit_covariates((SEX,), raw).apply(raw).shape == (2, 0)


def test_a_block_equals_scikit_learns_whitened_components_up_to_sign() -> None:
    raw, new = table(), table(seed=1)
    columns = [name for name in raw if name.endswith("_rna")]
    scaler = StandardScaler().fit(raw[columns].to_numpy())
    pca = PCA(4, whiten=True, svd_solver="full").fit(scaler.transform(raw[columns].to_numpy()))
    expected = pca.transform(scaler.transform(new[columns].to_numpy())) * np.sqrt(len(raw) / (len(raw) - 1))
    found = fit_covariates((GENES,), raw).apply(new)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(np.abs((np.sign(found) * np.sign(expected)).sum(axis=0)), len(new))


def test_a_blocks_scores_have_unit_variance_in_training() -> None:
    raw = table()
    scores = fit_covariates((GENES,), raw).apply(raw)
    np.testing.assert_allclose(scores.T @ scores / len(raw), np.eye(4), atol=1e-10)


def test_a_block_has_no_more_components_than_its_rank() -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    raw = pd.DataFrame({"a_rna": base[:, 0], "b_rna": base[:, 1], "c_rna": base.sum(axis=1)})
    transform = fit_covariates((GENES,), raw)
    assert transform.names == ["genes_1", "genes_2"]
    assert np.isfinite(transform.apply(raw)).all()


def test_constant_and_empty_columns_become_zero_and_not_nan() -> None:
    raw = table().assign(age=np.nan, g0_rna=7.0, g1_rna=np.nan)
    found = fit_covariates((AGE, GENES), raw).apply(raw)
    assert np.isfinite(found).all()
    assert (found[:, 0] == 0).all()


def test_a_constant_and_an_empty_column_do_not_change_a_blocks_scores() -> None:
    raw = table()
    more = raw.assign(constant_rna=7.0, empty_rna=np.nan)
    expected, found = fit_covariates((GENES,), raw).apply(raw), fit_covariates((GENES,), more).apply(more)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-10)


def test_missing_cells_of_a_block_are_filled_with_training_medians() -> None:
    raw = table()
    transform = fit_covariates((GENES,), raw)
    hole, filled = raw.copy(), raw.copy()
    hole.loc[3, "g2_rna"] = np.nan
    filled.loc[3, "g2_rna"] = raw["g2_rna"].median()
    np.testing.assert_allclose(transform.apply(hole), transform.apply(filled), atol=1e-12)


def test_only_the_rows_given_decide_the_fit() -> None:
    raw, other = table(), table()
    other.loc[40:, ["age", "g0_rna"]] = 1e6
    other.loc[40:, "sex"] = "alien"
    covariates = (AGE, SEX, GENES)
    first, second = (fit_covariates(covariates, one.iloc[:40]) for one in (raw, other))
    assert first.names == second.names
    assert same(first, second, raw)


def test_json_gives_the_very_same_transform_back() -> None:
    raw = table()
    transform = fit_covariates((AGE, SEX, GENES), raw)
    again = transform_from_json(json.loads(json.dumps(transform.to_json())))
    assert again.names == transform.names
    assert same(transform, again, table(seed=2))


def test_json_gives_back_a_block_without_components() -> None:
    raw = pd.DataFrame({"a_rna": [1.0, 1.0], "b_rna": [2.0, 2.0]})
    transform = fit_covariates((GENES,), raw)
    again = transform_from_json(json.loads(json.dumps(transform.to_json())))
    assert again.apply(raw).shape == transform.apply(raw).shape == (2, 0)


def test_no_covariates_give_no_columns() -> None:
    assert fit_covariates((), table()).apply(table()).shape == (60, 0)


def test_a_table_without_a_needed_column_is_refused() -> None:
    transform = fit_covariates((AGE, GENES), table())
    assert isinstance(transform.parts[1], FittedBlock)
    with pytest.raises(PackageError, match=r"trained with column\(s\) age, g1_rna, which the table does not have"):
        transform.apply(table().drop(columns=["age", "g1_rna"]))
