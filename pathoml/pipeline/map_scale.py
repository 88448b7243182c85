"""Where the colours of a training cohort's maps end, so that one colour can mean one value on every slide."""

from collections.abc import Mapping, Sequence

import numpy as np

from pathoml.bags import read_bag
from pathoml.heatmap_settings import MapName
from pathoml.heatmaps import colour_end, relative_to_average
from pathoml.packages import Package
from pathoml.pipeline.study import Study
from pathoml.splits import Fold
from pathoml.tile_scores import score_tiles
from pathoml.units import FloatArray

_MOST_SLIDES = 200


def cohort_map_ends(
    study: Study, usable: Sequence[str], folds: Sequence[Fold], packages: Mapping[str, Package], *, device: str = "cpu"
) -> dict[MapName, float]:
    """Look at slides of the training cohort, each with the model that has not seen its patient.

    Parameters
    ----------
    study : Study
        With slides.
    usable : sequence of str
        Slides that have a bag.
    folds : sequence of Fold
        Of one scheme: together they test every patient.
    packages : mapping of str to Package
        The folds' models by key.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    dict of str to float
        By kind of map, the 98th percentile of the absolute values of tiles; every slide counts the same. At most 200
        slides, evenly drawn, are looked at.
    """
    if study.config.slides is None:
        return {}
    present = set(usable)
    looked_at = [
        (packages[fold.key], entry.slide_id)
        for fold in folds
        for patient in fold.test
        for entry in study.cohort.slides.get(patient, ())
        if entry.slide_id in present
    ]
    chosen = np.unique(np.linspace(0, len(looked_at) - 1, min(_MOST_SLIDES, len(looked_at))).astype(int))
    ends: dict[MapName, list[FloatArray]] = {"contribution": [], "attention": []}
    for package, slide_id in (looked_at[index] for index in chosen):
        scores = score_tiles(
            package.members, package, read_bag(study.config.slides.bags / f"{slide_id}.h5"), device=device
        )
        for kind, values in (("contribution", scores.contribution), ("attention", scores.attention)):
            if values is not None:
                spread = np.quantile(np.abs(relative_to_average(values)), np.linspace(0, 1, 201))
                ends["contribution" if kind == "contribution" else "attention"].append(spread)
    return {kind: colour_end(np.concatenate(spreads)) for kind, spreads in ends.items() if spreads}
