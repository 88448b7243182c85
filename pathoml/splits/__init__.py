"""Who trains and who tests: folds of whole patients, made once, saved, checked."""

from pathoml.splits.folds import (
    ROLES,
    Fold,
    check_folds,
    fold_problems,
    patients_in_two_groups,
    read_folds,
    write_folds,
)
from pathoml.splits.given import fold_files
from pathoml.splits.making import Dealing, deal, examine_folds, make_folds
from pathoml.splits.settings import (
    ExternalSettings,
    FixedSettings,
    FoldFilesSettings,
    KFoldSettings,
    LeaveOneSiteOutSettings,
    Scheme,
    SitePreservedSettings,
    SplitsSettings,
)
from pathoml.splits.site_preserved import SiteBalance, SiteDealing, deal_sites
from pathoml.splits.sites import SMALL_SITES

__all__ = [
    "ROLES",
    "SMALL_SITES",
    "Dealing",
    "ExternalSettings",
    "FixedSettings",
    "Fold",
    "FoldFilesSettings",
    "KFoldSettings",
    "LeaveOneSiteOutSettings",
    "Scheme",
    "SiteBalance",
    "SiteDealing",
    "SitePreservedSettings",
    "SplitsSettings",
    "check_folds",
    "deal",
    "deal_sites",
    "examine_folds",
    "fold_files",
    "fold_problems",
    "make_folds",
    "patients_in_two_groups",
    "read_folds",
    "write_folds",
]
