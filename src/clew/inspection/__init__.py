"""Inspection: how well a model knows single samples, and which of them to train on. Needs no torch."""

from clew.inspection.samples import Part, Scorer, Scores, Selection

__all__ = ["Part", "Scorer", "Scores", "Selection"]
