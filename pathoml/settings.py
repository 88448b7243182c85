"""The frozen base of every settings class."""

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationInfo

NOT_IN_HASH: dict[str, JsonValue] = {"in_hash": False}
"""Mark of a field that changes how work is done (paths, workers, device) but not what comes out."""


def _from_config_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder).absolute() / path


ConfigPath = Annotated[Path, AfterValidator(_from_config_folder)]
"""A path that starts from the folder of the configuration file, unless it is absolute."""


def _from_data_folder(path: Path, info: ValidationInfo) -> Path:
    data = (info.context or {}).get("data")
    return _from_config_folder(path if data is None else Path(data) / path, info)


DataPath = Annotated[Path, AfterValidator(_from_data_folder)]
"""A path of what a study reads: it starts from the folder that the configuration calls `data`, else from its own."""


class Settings(BaseModel):
    """Base of all settings: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def merge(base: Any, top: Any) -> Any:
    """Complete one plain value, as YAML gives it, by another.

    Parameters
    ----------
    base : Any
        What is extended.
    top : Any
        What stands in the file itself; wins.

    Returns
    -------
    Any
        Mappings are merged key by key; but where `kind` differs, and for everything else, `top` replaces `base`.

    Examples
    --------
    >>> merge({"a": 1, "b": {"kind": "x", "p": 1}}, {"b": {"kind": "y"}})
    {'a': 1, 'b': {'kind': 'y'}}
    """
    if not isinstance(base, dict) or not isinstance(top, dict):
        return top
    if "kind" in top and top["kind"] != base.get("kind", top["kind"]):
        return top
    merged = dict(base)
    for key, value in top.items():
        merged[key] = merge(base[key], value) if key in base else value
    return merged


def result_settings(settings: Settings) -> dict[str, Any]:
    """Return the part of the settings that decides the result: no paths, no device, no worker counts.

    Parameters
    ----------
    settings : Settings
        Any settings object.

    Returns
    -------
    dict of str to Any
        Plain JSON values, nested as the settings are.
    """
    plain: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("in_hash") is False:
            continue
        if not _holds_path(field.annotation):
            plain[name] = _plain(getattr(settings, name))
    return plain


def _holds_path(annotation: object) -> bool:
    """Tell whether a field is a path, optional or not, set or not."""
    return annotation is Path or any(
        _holds_path(part) for part in get_args(annotation) if isinstance(part, type) or get_args(part)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return result_settings(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
