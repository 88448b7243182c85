"""A run -> one self-contained page."""

from pathoml.report.page import Page, write_report

__all__ = ["Page", "write_report"]
