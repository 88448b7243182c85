"""What `pathoml encoders` says: a record's facts, and what could be verified of its network here."""

from pathlib import Path

from pathoml.encoders.registry import EncoderRecord, find_record
from pathoml.errors import EncoderError


def record_facts(name: str) -> list[tuple[str, str]]:
    """Return everything that the registry knows of an encoder.

    Parameters
    ----------
    name : str
        As in ``pathoml encoders list``.

    Returns
    -------
    list of (str, str)
        Name and value; what no source says is so marked.
    """
    record = find_record(name)
    level = f"slides: takes the features of {record.tile_encoder}" if record.tile_encoder else "tiles"
    facts = [
        ("Encodes", level),
        ("Features", f"{record.dim} columns" + (f"; pooling: {record.pooling}" if record.pooling else "")),
        (
            "Tiles",
            f"{record.tile_px} px at {record.mpp:g} microns per pixel, {record.input_text}; resizing is {record.interpolation}",
        ),
        ("Colours", f"mean {record.mean}, standard deviation {record.std}"),
        ("Precision", f"published as {record.precision} (extract.precision: {record.precision})"),
        ("Licence", record.licence + ("; gated, terms are accepted on its page" if record.gated else "")),
        ("Pretrained on", record.pretraining),
        ("TCGA among it", record.tcga_text),
        ("Parameters", f"{record.parameters} ({record.parameters_source})" if record.parameters else ""),
        ("Weights", _weights_text(record)),
        ("Names of tensors", record.keys_source),
        ("Verified", record.verified),
        ("Source", record.source),
    ]
    return [(title, value or "no source found") for title, value in facts]


def _weights_text(record: EncoderRecord) -> str:
    if not record.hub_id:
        return "not on the hub under its authors' name; give encoder.weights and encoder.sha256"
    revision = (
        f"{record.revision} (named by {record.revision_source})"
        if record.revision
        else "the newest, no commit is documented"
    )
    return f"{record.hub_id}, file {record.weights_file or '(not documented)'}, revision {revision}"


def _digest_text(record: EncoderRecord, digest: str, *, was_asked: bool) -> str:
    """Say what a file's digest was compared with."""
    if record.sha256:
        same = "the published one" if digest == record.sha256 else f"not the published one, {record.sha256}"
    else:
        same = "none is published"
    asked = "as given" if was_asked else "not compared with any that was given; keep it for encoder.sha256"
    return f"SHA-256 {digest}, {asked}; {same}"


def verify_encoder(name: str, weights: Path | None, sha256: str | None) -> list[tuple[str, str]]:
    """Build an encoder's network, run it, and load its weights if they are given.

    Parameters
    ----------
    name : str
        Of a tile encoder.
    weights : Path or None
        Its published weights file.
    sha256 : str or None
        What the file's SHA-256 has to be.

    Returns
    -------
    list of (str, str)
        What was verified, and what was not.

    Raises
    ------
    EncoderError
        If the network cannot be built, gives other features than stated, or the weights do not fit.
    """
    import torch

    from pathoml.encoders.architectures import build_architecture, build_for_weights
    from pathoml.encoders.build import load_published
    from pathoml.files import file_digest

    record = find_record(name)
    module = build_architecture(record, "meta") if weights is None else build_for_weights(record)
    count = sum(parameter.numel() for parameter in module.parameters())
    network = f"built; {count:,} parameters" + (f", published: {record.parameters}" if record.parameters else "")
    if weights is None:
        loaded = "not verified: no file was given (--weights FILE)"
    else:
        load_published(module, record, weights, sha256)
        loaded = f"{weights.name} fits; {_digest_text(record, file_digest(weights), was_asked=sha256 is not None)}"
    tile = torch.rand(1, 3, record.input_px, record.input_px, device="meta" if weights is None else "cpu")
    with torch.inference_mode():
        features = module(tile)
    if features.shape != (1, record.dim):
        raise EncoderError(
            f"encoder {name}: a tile gave features of shape {tuple(features.shape)}, not (1, {record.dim})"
        )
    if weights is not None and not bool(features.isfinite().all()):
        raise EncoderError(f"encoder {name}: a random tile gave features that are not finite; are these its weights?")
    said = "their shape alone, since there are no weights" if weights is None else "all finite"
    return [
        ("Network", network),
        ("Random tile", f"{record.input_px} px gave {record.dim} features; {said}"),
        ("Weights", loaded),
        ("Published features", "not verified: none are at hand to compare with"),
    ]
