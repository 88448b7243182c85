"""The seal on a fold's test patients: whoever asks for one of them while a model is fitted is stopped, and named."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pathoml.errors import LeakError


@dataclass
class Seal:
    """Who tests a fold, and who has been looked at since the seal was laid.

    Parameters
    ----------
    fold : str
        The fold's key, for messages.
    test : frozenset of str
        Patients that nobody may look at.
    seen : set of str
        Patients that were looked at: filled by `look`.
    """

    fold: str
    test: frozenset[str]
    seen: set[str] = field(default_factory=set)

    def look(self, patient_ids: Iterable[str]) -> None:
        """Note that patients are looked at.

        Parameters
        ----------
        patient_ids : iterable of str
            Who.

        Raises
        ------
        LeakError
            If one of them tests the fold.
        """
        wanted = set(patient_ids)
        hidden = sorted(wanted & self.test)
        if hidden:
            raise LeakError(
                f"sealed_test_patients: fold {self.fold}: {len(hidden)} patient(s) that test it were asked for while its model "
                f"was fitted or tuned: {', '.join(hidden[:5])}; a model that has seen them cannot be scored on them"
            )
        self.seen |= wanted
