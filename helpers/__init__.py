"""The package behind the course: one room per step, read in the order a lesson uses it."""

from pathlib import Path

from .auditing import audit

__all__ = ["audit"]
# `helpers.drawing`, which draws the sample, lies in data/ of a clone; a wheel brings it along in this folder.
__path__.append(str(Path(__file__).resolve().parent.parent / "data"))
