"""The package behind the course: one room per step, read in the order a lesson uses it."""

from .auditing import audit

__all__ = ["audit"]
