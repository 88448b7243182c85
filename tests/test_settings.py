"""Settings: frozen, complete, and split into what decides the result and what does not."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from pathoml.encoders.settings import LocalSettings
from pathoml.extract_settings import ExtractSettings
from pathoml.settings import NOT_IN_HASH, ConfigPath, Settings, result_settings
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings


class Inner(Settings):
    size: int = 3
    device: str = Field("cpu", json_schema_extra=NOT_IN_HASH)


class Outer(Settings):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = (Inner(size=1), Inner(size=2))
    by_name: dict[str, Inner] = Field(default_factory=lambda: {"a": Inner()})
    table: ConfigPath = Path("cohort.csv")
    tables: tuple[Path, ...] = (Path("a.csv"),)
    rate: float = 0.5
    workers: int = Field(2, json_schema_extra=NOT_IN_HASH)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"tile_size\s+Extra inputs are not permitted"):
        TilingSettings(tile_size=224)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="Instance is frozen"):
        TilingSettings().tile_px = 256


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_setting_is_nan_or_infinite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Outer(rate=value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TilingSettings, {"target_mpp": 0.01}), (TilingSettings, {"overlap": 1.0}), (TilingSettings, {"tile_px": 8}),
        (ClassicalTissueSettings, {"mask_mpp": 0.5}), (ExtractSettings, {"batch_tiles": 0}), (ExtractSettings, {"workers": -1}),
        (ExtractSettings, {"max_lost_share": 1.1}),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused_by_name(kind: type[Settings], values: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(values))}\n +Input should be (greater|less) than"):
        kind(**values)


def test_what_decides_the_result_leaves_out_paths_devices_and_workers_at_every_depth() -> None:
    assert result_settings(Outer()) == {
        "inner": {"size": 3}, "many": [{"size": 1}, {"size": 2}], "by_name": {"a": {"size": 3}}, "rate": 0.5,
    }  # fmt: skip


def test_where_and_how_work_is_done_does_not_decide_the_result() -> None:
    elsewhere = Outer(workers=9, table=Path("/x.csv"), inner=Inner(device="cuda"), tables=(Path("b.csv"),))
    assert result_settings(elsewhere) == result_settings(Outer())


@pytest.mark.parametrize("name", ["workers", "slide_timeout_s"])
def test_the_number_of_workers_and_deadlines_stay_out_of_what_decides_extraction(name: str) -> None:
    assert name not in result_settings(ExtractSettings())


def test_weights_count_by_their_digest_and_not_by_their_path() -> None:
    one, other = (LocalSettings(architecture="a", weights=Path(path), sha256="0" * 64) for path in ("x.pth", "y.pth"))
    assert result_settings(one) == result_settings(other)
    assert result_settings(one)["sha256"] == "0" * 64


@pytest.mark.parametrize(("given", "found"), [("cohort.csv", "/study/cohort.csv"), ("/data/c.csv", "/data/c.csv")])
def test_a_relative_path_starts_from_the_folder_of_the_configuration(given: str, found: str) -> None:
    assert Outer.model_validate({"table": given}, context={"folder": Path("/study")}).table == Path(found)
    assert Outer.model_validate({"table": given}).table == Path(given)
