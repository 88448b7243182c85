"""Every exception that pathoml raises on purpose.

The tree::

    PathomlError
    ├── InputError (ValueError)             what the user gave is wrong; nothing was done
    │   ├── ConfigError
    │   ├── CohortError
    │   │   └── LeakError                   a model has seen, or would see, patients that it is scored on
    │   ├── EncoderError
    │   └── PackageError
    ├── SlideError                          one slide is lost; the archive goes on; `code` goes to the ledger
    │   ├── SlideNotFoundError (FileNotFoundError)
    │   ├── SlidePermissionError (PermissionError)
    │   ├── UnreadableSlideError (ValueError)
    │   │   ├── EmptySlideError
    │   │   ├── TextFileError
    │   │   ├── NotAnImageError
    │   │   ├── RenamedImageError
    │   │   ├── UnsupportedSlideError
    │   │   ├── TruncatedSlideError
    │   │   ├── MissingFilesError
    │   │   └── TooLargeSlideError
    │   ├── DamagedSlideError (ValueError)
    │   ├── MissingMppError (ValueError)
    │   ├── BadMppError (ValueError)
    │   ├── NotBrightfieldError (ValueError)
    │   ├── NoTissueError (ValueError)
    │   ├── NoRegionsError (ValueError)
    │   ├── BadStainError (ValueError)
    │   ├── BadFeaturesError (ValueError)
    │   ├── OutOfMemoryError (MemoryError)
    │   ├── WorkerLostError (RuntimeError)
    │   └── UnforeseenSlideError (RuntimeError)
    ├── SlidesFailedError                   so many slides were lost that what was asked for cannot be done
    ├── TrainingError (ArithmeticError)     a model cannot be trained further; the patients are named
    ├── BagError (ValueError)               a feature bag is missing, damaged, or of another kind than asked
    │   ├── BagFormatError
    │   └── BagMismatchError
    ├── FederationError (RuntimeError)      a plan, a message or a site does not do what the network agreed on
    │   └── RefusedError                    a site says no; `code` is all that leaves it
    └── OutputError (OSError)               a result cannot be written where it was asked for
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the user's input, and where.

    Parameters
    ----------
    where : str
        File with line, or file with row and column, or the name of the object.
    message : str
        What was found, what was expected, and what to do.
    key : tuple of str or int, optional
        The key of the configuration that it follows from, so that `check` can name its line.
    """

    where: str
    message: str
    key: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


def first_of(problems: Sequence[Problem], file_name: str, shown: int = 10) -> list[Problem]:
    """Return the first problems of one kind, and how many more there are.

    Parameters
    ----------
    problems : sequence of Problem
        All of that kind.
    file_name : str
        Where they are.
    shown : int, optional
        How many are listed.

    Returns
    -------
    list of Problem
        At most ``shown + 1``.
    """
    if len(problems) <= shown:
        return list(problems)
    return [*problems[:shown], Problem(file_name, f"... and {len(problems) - shown} more like these")]


class PathomlError(Exception):
    """Root of all errors raised on purpose by pathoml."""


class InputError(PathomlError, ValueError):
    """What the user gave is wrong; nothing was done.

    Parameters
    ----------
    message : str
        One sentence for a single problem, or the headline above several.
    problems : sequence of Problem, optional
        Every problem found, in file order.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        lines = [message, *(f"  {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines))


class ConfigError(InputError):
    """The configuration file is wrong."""


class CohortError(InputError):
    """The clinical table, the slide manifest, or the folds made of them are wrong."""


class LeakError(CohortError):
    """A model has seen, or would see, patients that it is scored on; the check that found it stands first."""


class EncoderError(InputError):
    """An encoder is unknown, cannot be had, or does not fit the tiles it was given."""


class TrainingError(PathomlError, ArithmeticError):
    """A model's loss is not a finite number; the patients are named."""


class PackageError(InputError):
    """A model package is missing, altered, or does not fit what it was asked to score."""


class SlideError(PathomlError):
    """One slide cannot be used; the rest of the archive can."""

    code: ClassVar[str] = "SLIDE_ERROR"


class SlideNotFoundError(SlideError, FileNotFoundError):
    """No file at the slide's path."""

    code = "NOT_FOUND"


class SlidePermissionError(SlideError, PermissionError):
    """The operating system does not let this user read the file."""

    code = "NO_PERMISSION"


class UnreadableSlideError(SlideError, ValueError):
    """The file cannot be opened as a slide; the leaves say why."""

    code = "UNREADABLE"


class EmptySlideError(UnreadableSlideError):
    """The file has no bytes."""

    code = "EMPTY"


class TextFileError(UnreadableSlideError):
    """The file holds text or a web page: often the error page of a failed download."""

    code = "TEXT"


class NotAnImageError(UnreadableSlideError):
    """The file, or folder, holds no image of any known kind."""

    code = "NOT_AN_IMAGE"


class RenamedImageError(UnreadableSlideError):
    """The file is an ordinary picture under the name of a slide format."""

    code = "RENAMED_IMAGE"


class UnsupportedSlideError(UnreadableSlideError):
    """The file is an image of a kind that cannot be read."""

    code = "UNSUPPORTED"


class TruncatedSlideError(UnreadableSlideError):
    """The file ends before its data do."""

    code = "TRUNCATED"


class MissingFilesError(UnreadableSlideError):
    """The slide consists of several files and some are not there."""

    code = "MISSING_FILES"


class TooLargeSlideError(UnreadableSlideError):
    """The image claims to be larger than any slide, or than a plain image may be."""

    code = "TOO_LARGE"


class DamagedSlideError(SlideError, ValueError):
    """The slide's directory or too many of its tiles cannot be decoded."""

    code = "DAMAGED"


class MissingMppError(SlideError, ValueError):
    """Nobody says the slide's resolution."""

    code = "NO_MPP"


class BadMppError(SlideError, ValueError):
    """The slide's resolution is stated, and is absurd or too coarse to be used."""

    code = "BAD_MPP"


class NotBrightfieldError(SlideError, ValueError):
    """The slide is dark where there is no tissue: fluorescence, or inverted colours."""

    code = "NOT_BRIGHTFIELD"


class NoTissueError(SlideError, ValueError):
    """No tile of the slide holds enough tissue."""

    code = "NO_TISSUE"


class NoRegionsError(SlideError, ValueError):
    """The slide has no outlined regions where the configuration asks for them."""

    code = "NO_REGIONS"


class BadStainError(SlideError, ValueError):
    """The stains of the slide cannot be told, so that its colours cannot be normalised."""

    code = "BAD_STAIN"


class BadFeaturesError(SlideError, ValueError):
    """The encoder gave features that are not finite, or too large for the number format of the bag."""

    code = "BAD_FEATURES"


class OutOfMemoryError(SlideError, MemoryError):
    """Reading the slide needed more memory than there is."""

    code = "OUT_OF_MEMORY"


class WorkerLostError(SlideError, RuntimeError):
    """The worker process that read the slide died or took too long."""

    code = "WORKER_LOST"


class UnforeseenSlideError(SlideError, RuntimeError):
    """Reading the slide failed in a way that pathoml does not know: a fault of pathoml, or of a library, that costs this slide."""

    code = "INTERNAL"


class SlidesFailedError(PathomlError):
    """Slides were worked through, and too few of them can be used to go on.

    Parameters
    ----------
    message : str
        What cannot be done.
    problems : sequence of Problem, optional
        The slides that failed, each with its code.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  {problem}" for problem in self.problems)]))


class BagError(PathomlError, ValueError):
    """A feature bag cannot be used."""


class BagFormatError(BagError):
    """The file is not a whole, valid bag of a known version."""


class BagMismatchError(BagError):
    """The bag was made with another encoder, resolution or tiling than asked for."""


class OutputError(PathomlError, OSError):
    """A result cannot be written where it was asked for."""


class FederationError(PathomlError, RuntimeError):
    """A plan, a message or a site does not do what the network agreed on."""


class RefusalCode(StrEnum):
    """Why a site says no: these words are all that leaves it."""

    NOT_APPROVED = "NOT_APPROVED"
    BAD_REQUEST = "BAD_REQUEST"
    NOT_SET_UP = "NOT_SET_UP"
    TOO_FEW_PATIENTS = "TOO_FEW_PATIENTS"
    OTHER_ENDPOINT = "OTHER_ENDPOINT"
    OTHER_FEATURES = "OTHER_FEATURES"
    OTHER_COVARIATES = "OTHER_COVARIATES"
    BAD_DATA = "BAD_DATA"
    TRAINING_FAILED = "TRAINING_FAILED"
    MAY_NOT_LEAVE = "MAY_NOT_LEAVE"
    LIMIT_OF_SITE = "LIMIT_OF_SITE"


class RefusedError(FederationError):
    """A site says no.

    Parameters
    ----------
    message : str
        What the site's own log and staff are told.
    code : RefusalCode, optional
        All that leaves the site.
    """

    def __init__(self, message: str, code: RefusalCode = RefusalCode.BAD_DATA) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[str, RefusalCode]]:
        return type(self), (str(self), self.code)
