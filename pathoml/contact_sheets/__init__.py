"""One picture a slide of what was kept, what was dropped and why; one page for a whole archive."""

from pathoml.contact_sheets.page import SlideRow, write_archive_page
from pathoml.contact_sheets.sheet import draw_contact_sheet, sheet_path, write_contact_sheet

__all__ = ["SlideRow", "draw_contact_sheet", "sheet_path", "write_archive_page", "write_contact_sheet"]
