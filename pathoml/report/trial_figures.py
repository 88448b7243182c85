"""What a prognosis is worth to a trial."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context

from pathoml.report.drawing import LINES, STYLE, new_figure, numbers, to_svg
from pathoml.report.words import days_words


def enrichment_figure(trial: Mapping[str, Any]) -> str:
    """Draw event rate, patients and cost of a trial against the share that is not enrolled.

    Parameters
    ----------
    trial : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    str
        SVG; empty text where no horizon lies within follow-up.
    """
    if not trial["enrichment"]:
        return ""
    panels = {
        "event_rate": "probability of the event",
        "screened": "patients screened",
        "cost": "cost (1 = no screening)",
    }
    with rc_context(STYLE):
        figure, axes = new_figure(9.0, 2.9, columns=len(panels))
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            for line, one in zip(LINES, trial["enrichment"], strict=False):
                share = 100 * np.array(one["not_enrolled_share"])
                axis.plot(share, numbers(one[name]["value"]), label=f"until {days_words(one['days'])}", **line)
                low, high = numbers(one[name]["low"]), numbers(one[name]["high"])
                axis.fill_between(share, low, high, color=line["color"], alpha=0.1, linewidth=0)
            axis.set(xlabel="% of the screened not enrolled (lowest risk)", ylabel=label)
            axis.set_ylim(bottom=0)
        axes[1].legend(frameon=False, loc="upper left")
        return to_svg(
            figure, "Enrichment of a trial: event rate, patients screened and cost by the share not enrolled."
        )
