"""What this machine has that pathoml needs."""

import os
import shutil
from pathlib import Path

from pathoml.encoders.registry import encoder_records
from pathoml.provenance import environment


def doctor(folder: Path) -> list[tuple[str, str]]:
    """Describe the machine.

    Parameters
    ----------
    folder : Path
        Where results would go: its free disk is reported.

    Returns
    -------
    list of (str, str)
        Name and finding.
    """
    import openslide
    import torch

    facts = list(environment().items())
    facts.append(("openslide library", openslide.__library_version__))
    facts.append(("CPU cores", str(os.cpu_count())))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            facts.append((f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        facts.append(("GPU", "none that torch can use; everything runs on the CPU"))
    free = shutil.disk_usage(folder).free
    facts.append((f"free disk in {folder}", f"{free / 2**30:.1f} GiB"))
    facts.append(("encoder lite0", "at hand (inside an installed package); try-out encoder, not a pathology model"))
    known = [record for record in encoder_records() if record.kind == "tile"]
    gated = sum(record.gated for record in known)
    facts.append(("registered encoders", f"{len(known)}, {gated} of them gated; 'pathoml encoders list' shows them"))
    token = "set" if os.environ.get("HF_TOKEN") else "not set; gated encoders need it"
    facts.append(("HF_TOKEN", token))
    return facts


def resolve_device(asked: str) -> str:
    """Turn ``auto`` into the device at hand.

    Parameters
    ----------
    asked : str
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    str
        ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If ``cuda`` is asked for and there is none.
    """
    import torch

    from pathoml.errors import InputError

    if asked not in {"auto", "cpu", "cuda"}:
        raise InputError(f"device '{asked}' is not one of auto, cpu, cuda")
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise InputError(
            "device: cuda is asked for, but torch finds no usable GPU; see 'pathoml doctor', or set device: cpu"
        )
    return ("cuda" if available else "cpu") if asked == "auto" else asked
