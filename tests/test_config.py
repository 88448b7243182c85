"""One file -> one settings tree, or every mistake with its line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pathoml.config import Config, load_config
from pathoml.errors import ConfigError
from pathoml.settings import merge

CONFIGS = sorted(
    path for path in (Path(__file__).parents[1] / "configs").glob("**/*.yaml") if path.parent.name != "federated"
)
BASE = """\
name: study
output: out
cohort:
  table: cohort.csv
  time: time
  time_unit: days
  event: event
"""


def load(folder: Path, text: str, *overrides: str, name: str = "study.yaml") -> Config:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = BASE + "trian: {}\ntrain:\n  max_epochs: -1\n  loss: {kind: discret}\nmodel:\n  aggregator: {kind: abmill}\n"
    with pytest.raises(ConfigError, match=r"study\.yaml: 4 problem\(s\)") as caught:
        load(tmp_path, text)
    found = {problem.where: problem.message for problem in caught.value.problems}
    assert set(found) == {"study.yaml:8", "study.yaml:10", "study.yaml:11", "study.yaml:13"}
    assert found["study.yaml:8"] == "trian: unknown key; did you mean 'train'?"
    assert found["study.yaml:10"].startswith("train.max_epochs: input should be greater than or equal to 0, found -1")
    kinds = "cox, discrete, pmf, mtlr, deephit"
    assert found["study.yaml:11"] == f"train.loss.kind: 'discret' is not one of {kinds}; did you mean 'discrete'?"
    assert found["study.yaml:13"].endswith("did you mean 'abmil'?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE.replace("  time: time\n", ""), r"study\.yaml:3: cohort\.time: missing; give it a value"),
        (BASE + "model: {aggregator: {hidden_dim: 3}}\n", r"study\.yaml:8: model\.aggregator\.kind: missing"),
        (BASE + "model: {aggregator: {kind: mean, dropout: 0.1}}\n", r"aggregator\.dropout: unknown key"),
        (BASE.replace("time_unit: days", "time_unit: hours"), r"study\.yaml:6: cohort\.time_unit: .*found 'hours'"),
        (BASE + "train: {learning_rate: .inf}\n", "finite number"),
        (BASE + "splits: {validation_share: 0.5}\n", r"splits\.validation_share: .*less than 0\.5"),
        (BASE + "train:\n", r"study\.yaml:8: train: .*found None"),
        (BASE + "extends: base.yaml\n", r"study\.yaml:8: extends: expected a list of files"),
        (BASE + "extends: [nowhere.yaml]\n", "nowhere.yaml: no such configuration file"),
        (BASE.replace("name: study", "name: 05"), r"study\.yaml:1: name: .*valid string"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_mistake_in_an_item_of_a_list_has_the_line_of_the_item(tmp_path: Path) -> None:
    covariates = "  covariates:\n    - {kind: numeric, column: age}\n    - {kind: numeric, colum: sex}\n"
    with pytest.raises(ConfigError, match=r"study\.yaml:10: cohort\.covariates\.1\.colum: unknown key.*'column'"):
        load(tmp_path, BASE + covariates)


def test_quoted_codes_and_words_stay_text_and_exponents_become_numbers(tmp_path: Path) -> None:
    text = (
        BASE.replace("name: study", "name: '05'") + "  event_codes: {NO: 0, 'yes': 1}\ntrain: {learning_rate: 1e-4}\n"
    )
    config = load(tmp_path, text)
    assert config.name == "05"
    assert config.cohort.event_codes == {"NO": 0, "yes": 1}
    assert config.train.learning_rate == 1e-4


def test_extends_completes_mappings_and_the_file_itself_wins(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("train: {max_epochs: 5, patience: 6}\n")
    (tmp_path / "two.yaml").write_text("train: {patience: 7, seed: 8}\n")
    config = load(tmp_path, BASE + "extends: [one.yaml, two.yaml]\ntrain: {seed: 9}\n")
    assert (config.train.max_epochs, config.train.patience, config.train.seed) == (5, 7, 9)


def test_a_changed_kind_replaces_the_whole_choice() -> None:
    base = {"model": {"aggregator": {"kind": "abmil", "hidden_dim": 4}}, "train": {"seed": 1}}
    merged = merge(base, {"model": {"aggregator": {"kind": "mean"}}})
    assert merged == {"model": {"aggregator": {"kind": "mean"}}, "train": {"seed": 1}}


def test_the_same_kind_is_completed() -> None:
    base = {"kind": "abmil", "hidden_dim": 4, "dropout": 0.0}
    assert merge(base, {"kind": "abmil", "hidden_dim": 8}) == {"kind": "abmil", "hidden_dim": 8, "dropout": 0.0}


def test_lists_are_replaced_and_inputs_left_alone() -> None:
    base, top = {"a": [1, 2], "b": {"c": 1}}, {"a": [3]}
    assert merge(base, top) == {"a": [3], "b": {"c": 1}}
    assert base == {"a": [1, 2], "b": {"c": 1}}


def test_a_mistake_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("# comment\ntrain:\n  max_epochs: many\n")
    with pytest.raises(ConfigError, match=r"base\.yaml:3: train\.max_epochs"):
        load(tmp_path, BASE + "extends: [base.yaml]\n")


def test_files_that_extend_one_another_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: [study.yaml]\n")
    with pytest.raises(ConfigError, match="is there a circle"):
        load(tmp_path, BASE + "extends: [base.yaml]\n")


def test_set_changes_a_value_and_a_kind(tmp_path: Path) -> None:
    config = load(tmp_path, BASE, "train.max_epochs=50", "train.loss.kind=discrete", "train.loss.bins=7")
    assert config.train.max_epochs == 50
    assert config.train.loss.kind == "discrete"
    assert config.train.loss.bins == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_epoch=5", r"--set train\.max_epoch: train\.max_epoch: unknown key; did you mean 'max_epochs'"),
        ("train.max_epochs=-1", r"--set train\.max_epochs: .*greater than or equal to 0, found -1"),
        ("train.max_epochs", r"--set train\.max_epochs: expected key\.subkey=value"),
        ("=3", "expected key.subkey=value"),
    ],
)
def test_a_wrong_set_option_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, BASE, override)


def test_paths_start_from_the_folder_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "base.yaml").write_text(BASE.replace("cohort.csv", "tables/cohort.csv"))
    config = load(tmp_path / "mine", "extends: [../shared/base.yaml]\noutput: /elsewhere\n")
    assert config.cohort.table == tmp_path / "mine" / "tables" / "cohort.csv"
    assert config.output == Path("/elsewhere")


@pytest.mark.skipif(not CONFIGS, reason="configs/ holds no YAML")
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_that_we_ship_loads(path: Path) -> None:
    assert load_config(path).digest


SLIDES = "slides: {manifest: slides.csv}\nextract: {workers: 2}\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("output: out", "output: elsewhere"),
        ("table: cohort.csv", "table: other.csv"),
        ("name: study", "device: cpu\nname: study"),
        ("workers: 2", "workers: 0, slide_timeout_s: 5"),
        ("manifest: slides.csv", "manifest: other.csv, bags: elsewhere"),
        ("manifest: slides.csv", "manifest: slides.csv, folder: /archive"),
    ],
)
def test_the_digest_does_not_depend_on_where_and_by_what_work_is_done(tmp_path: Path, old: str, new: str) -> None:
    text = BASE + SLIDES
    assert load(tmp_path, text.replace(old, new)).digest == load(tmp_path, text).digest


@pytest.mark.parametrize(
    "change", ["train.seed=1", "splits.seed=1", "cohort.time_unit=months", "tiling.target_mpp=1.5", "evaluate.seed=3"]
)
def test_the_digest_depends_on_what_decides_the_result(tmp_path: Path, change: str) -> None:
    assert load(tmp_path, BASE, change).digest != load(tmp_path, BASE).digest


def test_the_digest_does_not_depend_on_how_the_file_is_written(tmp_path: Path) -> None:
    plain = load(tmp_path, BASE + "train: {seed: 0, learning_rate: 0.01}\n")
    assert plain.digest == load(tmp_path, "train: {learning_rate: 1e-2}\n" + BASE).digest


def test_checking_a_configuration_never_loads_torch(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("patient_id,time,event\n" + "".join(f"p{i},{i},{i % 2}\n" for i in range(40)))
    (tmp_path / "study.yaml").write_text(BASE)
    code = (
        "import sys; from pathlib import Path; from pathoml.pipeline.checking import check\n"
        "result = check(Path(sys.argv[1])); assert not result.problems, result.problems\n"
        "heavy = {'torch', 'torchvision', 'timm'} & set(sys.modules); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "study.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=5", "did you mean 'max_epochs'?"),
        ("train.zzz=5", "known here: "),
        ("model.aggregator={kind: abmil, hiden_dim: 3}", "did you mean 'hidden_dim'?"),
        ("splits.schemes=[{kind: kfold, fold: 3}]", "did you mean 'folds'?"),
    ],
)
def test_an_unknown_key_is_answered_with_the_keys_of_its_own_section(tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "study.yaml").write_text(BASE)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(tmp_path / "study.yaml", [override])


def test_one_mistyped_key_in_a_list_is_one_problem(tmp_path: Path) -> None:
    text = BASE + "splits:\n  schemes:\n    - {kind: kfold, fold: 5}\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert "unknown key; did you mean 'folds'" in str(caught.value.problems[0])
