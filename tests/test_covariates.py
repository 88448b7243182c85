"""Covariates filled, scaled, coded and reduced, from training rows alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pathoml.covariates import (
    BlockCovariate,
    CategoricalCovariate,
    CovariateTransform,
    FittedBlock,
    FittedNumeric,
    GeneGroupsCovariate,
    NumericCovariate,
    OrdinalCovariate,
    UnseenWord,
    fit_covariates,
    read_gene_groups,
    transform_from_json,
    unseen_words,
)
from pathoml.errors import CohortError, PackageError
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


def written_and_read(transform: CovariateTransform) -> CovariateTransform:
    arrays: dict[str, np.ndarray] = {}
    return transform_from_json(json.loads(json.dumps(transform.to_json(arrays, "a."))), arrays, "a.")


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
    again = written_and_read(transform)
    assert again.names == transform.names
    assert same(transform, again, table(seed=2))


def test_json_gives_back_a_block_without_components() -> None:
    raw = pd.DataFrame({"a_rna": [1.0, 1.0], "b_rna": [2.0, 2.0]})
    transform = fit_covariates((GENES,), raw)
    again = written_and_read(transform)
    assert again.apply(raw).shape == transform.apply(raw).shape == (2, 0)


def test_no_covariates_give_no_columns() -> None:
    assert fit_covariates((), table()).apply(table()).shape == (60, 0)


def test_a_table_without_a_needed_column_is_refused() -> None:
    transform = fit_covariates((AGE, GENES), table())
    assert isinstance(transform.parts[1], FittedBlock)
    with pytest.raises(PackageError, match=r"trained with column\(s\) age, g1_rna, which the table does not have"):
        transform.apply(table().drop(columns=["age", "g1_rna"]))


STAGE = OrdinalCovariate(column="stage", levels=("I", "II", "III"))


def test_an_ordered_word_is_its_place_filled_with_the_median_and_standardised() -> None:
    raw = words("III", "I", "", "I", "II", "NA", column="stage")
    places = np.array([2.0, 0, np.nan, 0, 1, np.nan])
    filled = np.where(np.isnan(places), 0.5, places)
    found = fit_covariates((STAGE,), raw).apply(raw)[:, 0]
    np.testing.assert_allclose(found, (filled - filled.mean()) / filled.std(), atol=1e-12)


def test_each_step_of_an_ordered_word_counts_alike_even_where_training_lacks_a_level() -> None:
    transform = fit_covariates((STAGE,), words("I", "III", "I", column="stage"))
    found = transform.apply(words("I", "II", "III", column="stage"))[:, 0]
    assert found[2] - found[1] == pytest.approx(found[1] - found[0])


def test_an_unknown_ordered_word_is_found_with_all_levels_in_their_order() -> None:
    transform = fit_covariates((STAGE,), words("I", "II", column="stage"))
    raw = words("IV", "", "III", column="stage")
    assert unseen_words([transform], raw) == [UnseenWord(0, "stage", "IV", ("I", "II", "III"))]


@pytest.mark.parametrize(
    "covariate", [AGE.model_copy(update={"indicator": True}), STAGE.model_copy(update={"indicator": True})]
)
def test_an_indicator_says_where_a_value_was_missing(covariate) -> None:
    cells = [1.0, np.nan, 3.0] if covariate.kind == "numeric" else ["I", "", "III"]
    raw = pd.DataFrame({covariate.column: np.array(cells, dtype=float if covariate.kind == "numeric" else object)})
    transform = fit_covariates((covariate,), raw)
    assert transform.names == [covariate.column, f"{covariate.column} missing"]
    assert transform.apply(raw)[:, 1].tolist() == [0, 1, 0]


def test_a_number_is_filled_with_the_mean_where_that_is_asked_for() -> None:
    raw = pd.DataFrame({"age": [1.0, 2.0, 6.0, np.nan]})
    part = fit_covariates((NumericCovariate(column="age", impute="mean"),), raw).parts[0]
    assert isinstance(part, FittedNumeric)
    assert part.fill == 3.0


def test_components_scaled_by_the_first_keep_their_relative_variance() -> None:
    raw = table()
    each, first = (
        fit_covariates((GENES.model_copy(update={"scaling": scaling}),), raw).apply(raw)
        for scaling in ("each", "first")
    )
    deviations = first.std(axis=0)
    assert deviations[0] == pytest.approx(1)
    assert (np.diff(deviations) < 0).all()
    np.testing.assert_allclose(first / deviations, each, atol=1e-9)


def test_all_components_hold_all_there_is() -> None:
    raw = table()
    everything = fit_covariates((GENES.model_copy(update={"components": None, "scaling": "first"}),), raw)
    columns = raw[[name for name in raw if name.endswith("_rna")]].to_numpy()
    standard = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    scores = everything.apply(raw)
    ratio = (standard @ standard.T)[0, 0] / (scores @ scores.T)[0, 0]
    np.testing.assert_allclose(scores @ scores.T * ratio, standard @ standard.T, atol=1e-6)


GROUPS_CSV = "growth,repair\ng1,g4\ng2,g5\ng3,g6\n,g7\n"
GROUPS_GMT = "growth\tfrom a paper\tg1\tg2\tg3\nrepair\thttp\tg4\tg5\tg6\tg7\n"


@pytest.mark.parametrize(("name", "text"), [("groups.csv", GROUPS_CSV), ("groups.gmt", GROUPS_GMT)])
def test_each_group_of_genes_has_its_own_components(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    raw = table()
    groups = GeneGroupsCovariate(name="pathways", columns="*_rna", file=tmp_path / name, components=2)
    transform = fit_covariates((AGE, groups), raw)
    assert [(one.part, one.name, one.columns) for one in transform.groups] == [
        ("clinical", "clinical", (0,)), ("pathways", "pathways:growth", (1, 2)), ("pathways", "pathways:repair", (3, 4)),
    ]  # fmt: skip
    alone = fit_covariates((BlockCovariate(name="b", columns="g[1-3]_rna", components=2),), raw)
    np.testing.assert_allclose(transform.apply(raw)[:, 1:3], alone.apply(raw), atol=1e-9)


def test_groups_of_too_few_genes_are_left_out_and_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(GROUPS_CSV)
    groups = GeneGroupsCovariate(name="p", columns="*_rna", file=tmp_path / "groups.csv", least_genes=4)
    assert [one.name for one in fit_covariates((groups,), table()).groups] == ["p:repair"]
    with pytest.raises(
        CohortError, match=r"groups.csv: no group has 5 genes among the 9 columns .* \(the most are 4\)"
    ):
        fit_covariates((groups.model_copy(update={"least_genes": 5}),), table())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.gmt", "a\tx\tg1\na\tx\tg2\n", "g.gmt:2: group 'a' stands twice"),
        ("g.gmt", "a g1 g2\n", "g.gmt:1: expected name, description and genes"),
        ("g.csv", "a,b\ng1,\n", r"g.csv: group\(s\) b: no genes in it"),
        ("g.gmt", None, "no such file of gene groups"),
    ],
)
def test_a_file_that_is_none_of_gene_groups_is_refused(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CohortError, match=message):
        read_gene_groups(tmp_path / name)


def test_a_pattern_of_genes_has_one_star_which_is_the_gene() -> None:
    groups = GeneGroupsCovariate(name="p", columns="rna_*_z", file=Path("none.csv"))
    assert groups.matching(["rna_TP53_z", "rna__z", "TP53_z", "rna_A_b"]) == ["rna_TP53_z"]
    assert groups.gene("rna_TP53_z") == "TP53"
    with pytest.raises(ValueError, match=r"one \* has to stand for the gene"):
        GeneGroupsCovariate(name="p", columns="rna*_*", file=Path("none.csv"))


def test_a_part_of_which_a_patient_has_nothing_is_told_from_one_that_is_filled() -> None:
    raw = table().assign(age=60.0)
    raw.loc[0, ["age", "sex"]] = [np.nan, ""]
    raw.loc[1, "age"] = np.nan
    raw.loc[1, "sex"] = "f"
    raw.loc[2, [name for name in raw if name.endswith("_rna")]] = np.nan
    raw.loc[3, "g0_rna"] = np.nan
    transform = fit_covariates((AGE, GENES, SEX), raw)
    assert transform.part_names == ("clinical", "genes")
    assert transform.given(raw)[:4].tolist() == [[False, True], [True, True], [True, False], [True, True]]


def test_a_block_may_not_be_called_as_another_part_is() -> None:
    with pytest.raises(ValueError, match="'slides' is what pathoml calls another part"):
        BlockCovariate(name="slides", columns="*")


def test_twenty_thousand_columns_are_fitted_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(120, 20_000)) + rng.normal(size=(120, 3)) @ rng.normal(size=(3, 20_000))
    raw = pd.DataFrame(values, columns=[f"g{i}_rna" for i in range(20_000)])
    found = fit_covariates((BlockCovariate(name="wide", columns="*_rna", components=3),), raw).apply(raw)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    expected = PCA(3, svd_solver="full").fit_transform(standard)
    np.testing.assert_allclose(np.abs(found), np.abs(expected / expected.std(axis=0)), atol=1e-7)
