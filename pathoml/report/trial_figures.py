"""What a prognosis is worth to a trial."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context

from pathoml.report.drawing import LINES, STYLE, new_figure, numbers, to_svg
from pathoml.report.words import days_words, estimate_at, estimate_words

ENRICHMENT = {
    "event_rate": "probability of the event", "screened": "patients screened", "cost": "cost (1 = no screening)",
}  # fmt: skip
"""What is shown of an enriched trial, and what it is called."""


def enrichment_figure(curves: Sequence[Mapping[str, Any]], name: str) -> str:
    """Draw one quantity of a trial against the share that is not enrolled.

    Parameters
    ----------
    curves : sequence of mapping
        One a horizon, as `pathoml.evaluate` gives them.
    name : str
        One of `ENRICHMENT`.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(STYLE):
        figure, (axis,) = new_figure(3.6, 3.2)
        spoken = []
        for line, one in zip(LINES, curves, strict=False):
            share = 100 * np.array(one["not_enrolled_share"])
            until = days_words(one["days"])
            axis.plot(share, numbers(one[name]["value"]), label=f"until {until}", **line)
            low, high = numbers(one[name]["low"]), numbers(one[name]["high"])
            axis.fill_between(share, low, high, color=line["color"], alpha=0.1, linewidth=0)
            half = len(share) // 2
            spoken.append(
                f"until {until}, {share[half]:.0f} % not enrolled: {estimate_words(estimate_at(one[name], half), 2)}"
            )
        axis.set(xlabel="% of the screened not enrolled (lowest risk)", ylabel=ENRICHMENT[name])
        axis.set_ylim(bottom=0)
        figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside upper left")
        return to_svg(figure, f"Enrichment of a trial, {ENRICHMENT[name]}. {'; '.join(spoken)}")
