"""Bags of a compiled encoder are not taken for those of the other."""

from pathoml.encoders.settings import Lite0Settings
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings


def test_compiling_changes_the_digest() -> None:
    first, second = (
        Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(compile=one)).digest
        for one in (False, True)
    )
    assert first != second
