"""The package behind the course: one room per step, read in the order a lesson uses it."""


def __getattr__(name: str):
    """`helpers.audit`, loaded when it is first used, so that importing the package alone stays cheap."""
    if name == "audit":
        from .auditing import audit

        return audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
