"""A local viewer of slides and their maps: one process, one port of this machine, a token, nothing from outside."""

from pathoml.viewer.library import Library, NamedCurve, ViewedSlide

__all__ = ["Library", "NamedCurve", "ViewedSlide"]
