"""The exception tree is as its picture says, and errors survive the way between processes."""

import pickle
import re

import pytest

from pathoml import errors
from pathoml.errors import CohortError, InputError, OutputError, PathomlError, Problem, SlideError
from pathoml.units import DAYS_PER_UNIT

TREE = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PathomlError)]
SLIDE_ERRORS = [one for one in TREE if issubclass(one, SlideError)]


def drawn_tree() -> dict[str, tuple[int, list[str]]]:
    """Return the depth and the builtin bases of each class, as the docstring of the module draws them."""
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^ {4}([│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?", line):
            found[match[2]] = (len(match[1]) // 4, [match[3]] if match[3] else [])
    return found


def test_every_error_is_in_the_picture_and_every_name_of_the_picture_is_an_error() -> None:
    assert set(drawn_tree()) == {one.__name__ for one in TREE}


@pytest.mark.parametrize("kind", TREE, ids=lambda one: one.__name__)
def test_each_error_has_the_depth_and_the_builtin_of_the_picture(kind: type[PathomlError]) -> None:
    depth, builtins = drawn_tree()[kind.__name__]
    assert sum(issubclass(kind, one) for one in TREE) - 1 == depth
    own = [base.__name__ for base in kind.__bases__ if not issubclass(base, PathomlError) and base is not Exception]
    assert own == builtins


def test_every_way_to_lose_a_slide_has_its_own_code() -> None:
    codes = [one.code for one in SLIDE_ERRORS]
    assert len(set(codes)) == len(codes) == len(SLIDE_ERRORS)
    assert all(re.fullmatch(r"[A-Z_]+", code) for code in codes)


@pytest.mark.parametrize("kind", TREE, ids=lambda one: one.__name__)
def test_an_error_comes_back_from_another_process_as_it_was(kind: type[PathomlError]) -> None:
    again = pickle.loads(pickle.dumps(kind("slide 1: gone; bring it back")))
    assert type(again) is kind
    assert str(again) == "slide 1: gone; bring it back"


def test_several_problems_stand_below_their_headline_in_order() -> None:
    problems = [Problem("cohort.csv: row 3", "time is blank"), Problem("", "no site")]
    error = CohortError("cohort.csv: 2 problem(s)", problems)
    assert str(error) == "cohort.csv: 2 problem(s)\n  cohort.csv: row 3: time is blank\n  no site"
    assert error.problems == tuple(problems)
    assert isinstance(error, InputError)


def test_an_output_error_is_caught_as_an_os_error() -> None:
    with pytest.raises(OSError, match="cannot be written"):
        raise OutputError("run: cannot be written")


def test_units_of_time_agree_with_each_other() -> None:
    assert DAYS_PER_UNIT["years"] == pytest.approx(12 * DAYS_PER_UNIT["months"])
    assert DAYS_PER_UNIT["weeks"] == 7 * DAYS_PER_UNIT["days"] == 7
    assert DAYS_PER_UNIT["years"] == 365.25
