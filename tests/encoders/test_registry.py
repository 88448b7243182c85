"""The registry: every record is whole, says where it is from, and is what settings, documentation and commands show."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from pathoml.encoders.architectures import build_architecture
from pathoml.encoders.registry import EncoderRecord, encoder_records, find_record, markdown_table, table_rows
from pathoml.encoders.settings import EncoderSettings, RegisteredSettings
from pathoml.errors import EncoderError
from pathoml.extract.precision import PRECISIONS
from pathoml.extract_settings import ExtractSettings, Recipe, recipe_from_json
from pathoml.pipeline.encoder_facts import record_facts
from pathoml.provenance import settings_digest
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

ROOT = Path(__file__).parents[2]
RECORDS = encoder_records()
TILES = [record for record in RECORDS if record.kind == "tile"]
SLIDES = [record for record in RECORDS if record.kind == "slide"]
DIGEST = "0" * 64


def of_name(record: EncoderRecord) -> str:
    return record.name


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    return done.stdout.strip()


def test_the_encoders_of_the_field_are_there_once() -> None:
    names = [record.name for record in RECORDS]
    assert len(set(names)) == len(names)
    assert {"uni_v1", "uni_v2", "conch_v1", "conch_v15", "virchow", "virchow2", "phikon", "phikon_v2", "gigapath",
            "hoptimus0", "hoptimus1", "h0-mini", "midnight12k", "openmidnight", "gpfm", "keep", "hibou_b", "hibou_l",
            "kaiko_vits8", "kaiko_vits16", "kaiko_vitb8", "kaiko_vitb16", "kaiko_vitl14", "lunit_vits8", "lunit_vits16",
            "ctranspath", "musk", "resnet50"} == {record.name for record in TILES}  # fmt: skip
    assert {record.name for record in SLIDES} == {"titan", "prism", "chief", "gigapath_slide"}


@pytest.mark.parametrize("record", RECORDS, ids=of_name)
def test_a_record_is_whole_and_consistent(record: EncoderRecord) -> None:
    assert all((record.licence, record.pretraining, record.source)), "facts without a source are no facts"
    assert 0.05 <= record.mpp <= 10
    assert record.dim > 0
    assert record.tile_px >= record.resize_px >= record.input_px >= 224
    assert all(0 < value < 1 for value in (*record.mean, *record.std))
    assert bool(record.parameters) == bool(record.parameters_source)
    assert re.fullmatch(r"([0-9a-f]{40})?", record.revision)
    assert not record.revision or record.weights_file, "a commit without a file pins nothing"
    assert bool(record.revision) == bool(record.revision_source), "a commit without a source is no fact"
    assert re.fullmatch(r"([0-9a-f]{64})?", record.sha256)
    assert not record.sha256 or record.revision
    assert not record.weights_file or record.hub_id
    assert "http" not in repr(record)


@pytest.mark.parametrize("record", SLIDES, ids=of_name)
def test_a_slide_encoder_names_a_tile_encoder_of_its_resolution_and_is_not_built(record: EncoderRecord) -> None:
    tiles = find_record(record.tile_encoder)
    assert (tiles.kind, tiles.mpp, tiles.tile_px) == ("tile", record.mpp, record.tile_px)
    assert record.verified == "none"
    with pytest.raises(EncoderError, match=f"{record.name}: pathoml does not build.*features of {record.tile_encoder}"):
        build_architecture(record, "meta")


def test_what_was_pretrained_on_tcga_says_so_and_the_unknown_is_not_called_clean() -> None:
    """README files of owkin/HistoSSLscaling, Xiyue-Wang/TransPath, mahmoodlab/CONCH; UNI2's names no such archive."""
    found = [find_record(name).pretrained_on_tcga for name in ("phikon", "ctranspath", "conch_v1", "uni_v2")]
    assert found == [True, True, False, None]
    for record in RECORDS:
        if "TCGA" in record.pretraining and "no TCGA" not in record.pretraining:
            assert record.pretrained_on_tcga is True, record.name


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("uni2", "uni_v2"), ("UNI_V1", "uni_v1"), ("virchow-2", "virchow2"), ("phikon-v2", "phikon_v2")],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(asked: str, nearest: str) -> None:
    with pytest.raises(EncoderError, match=rf"'{asked}' is not registered; did you mean .*{nearest}.*encoders list"):
        find_record(asked)


def test_a_name_like_no_other_is_answered_without_a_guess() -> None:
    with pytest.raises(EncoderError, match="'zzzzzzzz' is not registered; 'pathoml encoders list' shows all"):
        find_record("zzzzzzzz")


@pytest.mark.parametrize("module", ["pathoml.encoders.registry", "pathoml.encoders.settings", "pathoml.config"])
def test_reading_facts_and_settings_loads_no_torch(module: str) -> None:
    code = f"import sys, {module} as m; from pathoml.encoders.registry import find_record; find_record('uni_v1')"
    assert python(f"{code}; print('torch' in sys.modules, 'timm' in sys.modules)") == "False False"


def test_the_command_that_lists_and_shows_loads_no_torch() -> None:
    listed = "from pathoml.cli import app; app(['encoders', 'list'], standalone_mode=False)"
    shown = "app(['encoders', 'show', 'virchow2'], standalone_mode=False)"
    said = python(f"import sys; {listed}; {shown}; print('torch' in sys.modules)")
    assert said.endswith("False")
    for record in RECORDS:
        assert record.name in said
    assert "cls+mean" in said


@pytest.mark.parametrize("record", RECORDS, ids=of_name)
def test_a_shown_record_names_its_source_and_marks_what_is_missing(record: EncoderRecord) -> None:
    facts = dict(record_facts(record.name))
    assert facts["Source"] == record.source
    assert facts["Pretrained on"] == record.pretraining
    assert (facts["Parameters"] == "no source found") == (not record.parameters)
    assert ("no commit is documented" in facts["Weights"]) == (bool(record.hub_id) and not record.revision)


def test_how_tiles_become_the_input_is_said_in_words() -> None:
    assert [find_record(name).input_text for name in ("phikon", "uni_v1", "gigapath")] == [
        "as they are", "resized to 224 px", "centre 224 px",
    ]  # fmt: skip
    both = dataclasses.replace(find_record("gigapath"), tile_px=512)
    assert both.input_text == "resized to 256 px, centre 224 px"


@pytest.mark.parametrize("record", RECORDS, ids=of_name)
def test_the_published_number_format_can_be_asked_for(record: EncoderRecord) -> None:
    assert ExtractSettings(precision=record.precision).precision in PRECISIONS
    assert f"extract.precision: {record.precision}" in dict(record_facts(record.name))["Precision"]


def test_the_table_of_the_documentation_is_that_of_the_registry() -> None:
    page = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert markdown_table() in page, "paste the output of pathoml.encoders.registry.markdown_table()"
    assert len(table_rows()) == len(RECORDS)


def test_settings_of_a_registered_encoder_are_chosen_by_kind() -> None:
    adapter: TypeAdapter[EncoderSettings] = TypeAdapter(EncoderSettings)
    chosen = adapter.validate_python({"kind": "registered", "name": "uni_v2"})
    assert chosen == RegisteredSettings(name="uni_v2")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "uni_v3"}, "not registered; did you mean uni_v2"),
        ({"name": "titan"}, "titan encodes whole slides; encoder.name takes a tile encoder, as conch_v15"),
        ({"name": "uni_v1", "weights": "uni.bin"}, "weights need their SHA-256; add sha256"),
        ({"name": "uni_v1", "sha256": "abc"}, "sha256"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_torch_is_there(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RegisteredSettings(**given)


def recipe_of(**changes: object) -> Recipe:
    encoder = RegisteredSettings(name="phikon", **changes)
    return Recipe(ClassicalTissueSettings(), TilingSettings(), encoder, ExtractSettings())


def test_where_the_weights_lie_does_not_decide_the_result_but_name_digest_and_tiles_do() -> None:
    here, there = (recipe_of(weights=Path(path), sha256=DIGEST) for path in ("a.pth", "b/c.pth"))
    assert here.digest == there.digest == recipe_of(sha256=DIGEST).digest
    others = [recipe_of(), recipe_of(sha256="1" * 64), recipe_of(sha256=DIGEST, other_tiles=True)]
    assert len({one.digest for one in [here, *others]}) == 4
    assert settings_digest(RegisteredSettings(name="uni_v1")) != settings_digest(RegisteredSettings(name="uni_v2"))


def test_a_recipe_finds_the_weights_again_on_another_machine() -> None:
    recipe = recipe_of(weights=Path("a.pth"), sha256=DIGEST)
    again = recipe_from_json(recipe.to_json(), encoder_weights="/elsewhere/a.pth")
    assert again.digest == recipe.digest
    assert again.encoder == RegisteredSettings(name="phikon", weights=Path("/elsewhere/a.pth"), sha256=DIGEST)


def test_without_a_file_a_recipe_takes_the_hubs_weights_and_still_checks_their_digest() -> None:
    again = recipe_from_json(recipe_of(weights=Path("a.pth"), sha256=DIGEST).to_json())
    assert again.encoder == RegisteredSettings(name="phikon", sha256=DIGEST)
