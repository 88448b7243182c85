"""A run -> one self-contained page, and every number beside it."""

from pathoml.report.page import Page, write_report

__all__ = ["Page", "write_report"]
