"""The items of TRIPOD+AI, with what the software knows about each."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

AUTHORS = "for the authors"


class Item(NamedTuple):
    """One item of the checklist.

    Parameters
    ----------
    number : str
        As in the statement.
    topic : str
        What is to be reported, in short.
    key : str
        Name of the answer, where the software may know one; empty where only the authors can.
    """

    number: str
    topic: str
    key: str = ""


ITEMS = (
    Item("1", "Title: development or evaluation of a prediction model, population, outcome", "title"),
    Item("2", "Abstract (TRIPOD+AI for abstracts)"),
    Item("3a", "Health care context and rationale, existing models"),
    Item("3b", "Target population, intended use and users", "use"),
    Item("3c", "Known health inequalities between groups"),
    Item("4", "Objectives: development, validation, or both", "objective"),
    Item("5a", "Sources of data for development and evaluation", "source"),
    Item("5b", "Dates of participants' accrual and end of follow-up", "follow_up"),
    Item("6a", "Setting, number and location of centres", "centres"),
    Item("6b", "Eligibility criteria", "eligibility"),
    Item("6c", "Treatments received"),
    Item("7", "Data preparation and quality checks", "preparation"),
    Item("8a", "Outcome, its definition and time horizon", "outcome"),
    Item("8b", "Who assessed the outcome, if judgement was needed"),
    Item("8c", "Blinding of the assessment of the outcome"),
    Item("9a", "Choice of initial predictors", "predictors"),
    Item("9b", "Definition of all predictors, how and when measured", "predictor_definitions"),
    Item("9c", "Who assessed predictors, if judgement was needed"),
    Item("10", "How the study size was arrived at", "size"),
    Item("11", "Missing data, and how they were handled", "missing"),
    Item("12a", "How data were divided for development and evaluation", "division"),
    Item("12b", "How predictors were handled: form, scaling, transformation", "handling"),
    Item("12c", "Type of model, building steps, tuning, internal validation", "model"),
    Item("12d", "Heterogeneity across clusters: how it was handled", "heterogeneity"),
    Item("12e", "Measures and plots of performance, and their comparison", "measures"),
    Item("12f", "Model updating, such as recalibration", "updating"),
    Item("12g", "How predictions were computed", "computation"),
    Item("13", "Class imbalance: methods and recalibration", "imbalance"),
    Item("14", "Approaches to fairness", "fairness"),
    Item("15", "Output of the model, and how groups are made of it", "output"),
    Item("16", "Differences between training and evaluation data", "differences"),
    Item("17", "Ethical approval and consent"),
    Item("18a", "Funding"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Protocol"),
    Item("18d", "Registration"),
    Item("18e", "Data sharing"),
    Item("18f", "Code sharing", "code"),
    Item("19", "Patient and public involvement"),
    Item("20a", "Flow of participants, with and without the outcome, follow-up", "flow"),
    Item("20b", "Characteristics of participants, missing data", "characteristics"),
    Item("20c", "Comparison of development and evaluation data", "differences"),
    Item("21", "Participants and events in each analysis", "events"),
    Item("22", "The full model, so that it can be used", "specification"),
    Item("23a", "Performance with intervals, also in key subgroups", "performance"),
    Item("23b", "Heterogeneity of performance across clusters", "by_hospital"),
    Item("24", "Results of model updating", "updating"),
    Item("25", "Interpretation, fairness and earlier studies"),
    Item("26", "Limitations", "limitations"),
    Item("27a", "Poor or missing input when the model is used", "poor_input"),
    Item("27b", "What users must do and know"),
    Item("27c", "Next steps for research"),
)
"""Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement. BMJ 385 (2024) e078378; topics in our own words."""


def fill_checklist(answers: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Put what is known beside each item.

    Parameters
    ----------
    answers : mapping of str to str
        Key of an item to what the software knows.

    Returns
    -------
    list of (str, str, str)
        Number, topic, and answer.

    Raises
    ------
    KeyError
        If an answer belongs to no item.
    """
    unknown = set(answers) - {item.key for item in ITEMS}
    if unknown:
        raise KeyError(f"no item of the checklist is called {', '.join(sorted(unknown))}")
    return [(item.number, item.topic, answers.get(item.key, AUTHORS)) for item in ITEMS]


def checklist_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Write a filled checklist as CSV.

    Parameters
    ----------
    rows : sequence of (str, str, str)
        As `fill_checklist` gives them.

    Returns
    -------
    str
        With a header.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("item", "topic", "answer"))
    writer.writerows(rows)
    return stream.getvalue()
