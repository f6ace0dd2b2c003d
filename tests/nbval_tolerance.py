"""Let a notebook cell say by how much its numbers may change. nbval itself compares text exactly.

The cell's tags say it; only the cells that carry one are touched:

    tolerance=0.05           numbers with a decimal point, an exponent or a % sign may differ by 0.05
    tolerance=5%             ... by 5 percent of the stored number
    tolerance-integers=12    whole numbers may differ too (or 5%); without this tag they stay exact

Everything around the numbers is compared exactly. Details worth knowing:

- A number with a % sign is read as a fraction: `tolerance=0.05` lets 83.3 % become 88.3 %, five points.
- The spaces before a number belong to it, so an aligned column still agrees when a number gets wider.
- 1,234,567.8 and 1.5e-3 are numbers. Digits that follow a letter (vgg16) and versions (2.9.1) are text.
- nan and inf are text: they agree with themselves and with no number.
- A tag that begins with "toleran" and cannot be read, or is given twice, fails its cell.
"""

import re
from decimal import Decimal
from typing import NamedTuple

import pytest
from nbval.plugin import IPyNbCell

NUMBER = re.compile(
    r"""[ ]*
    (?:(?<![\w.)])[-+−])?                        # a minus that follows a word or a number is a dash: 0.5-0.7
    (?<![\w.])                                   # vgg16 and 2.9.1 hold no numbers
    (?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?)
    (?!\d|\.\d)
    (?P<percent>(?=[ ]?%))?                      # looked at only: the sign stays in the exact text
    """,
    re.VERBOSE,
)
TAG = re.compile(r"(?P<name>tolerance|tolerance-integers)=(?P<size>\d+(?:\.\d+)?)(?P<percent>%?)")
HOOKED = ("runtest", "sanitize", "compare_outputs", "format_output_compare", "raise_cell_error")


class Tolerance(NamedTuple):
    """How far a number may be from the stored one."""

    size: Decimal
    relative: bool

    def __str__(self):
        return f"{float(self.size * 100):g} % of the stored number" if self.relative else f"{self.size}"

    def allows(self, reference, result):
        """Say whether `result` is near enough; decimal arithmetic, so the limit itself is allowed."""
        return abs(result - reference) <= self.size * (abs(reference) if self.relative else 1)


class Number(NamedTuple):
    """A number as it stands in an output."""

    text: str
    value: Decimal
    kind: str  # the tag that loosens it


def read_tags(tags):
    """Return {tag name: Tolerance} for a cell's tags. Raises ValueError for a tag that cannot be read."""
    allowed = {}
    for tag in tags:
        if not tag.strip().lower().startswith("toleran"):
            continue
        match = TAG.fullmatch(tag)
        if match is None or not Decimal(match["size"]):
            raise ValueError(f"The tag {tag!r} is not understood: write tolerance=0.05 or tolerance=5%.")
        if match["name"] in allowed:
            raise ValueError(f"The tag {match['name']} is given twice.")
        size = Decimal(match["size"])
        allowed[match["name"]] = Tolerance(size / 100 if match["percent"] else size, bool(match["percent"]))
    return allowed


def read_numbers(text):
    """Return the numbers of a text, in order."""
    return [read_number(match) for match in NUMBER.finditer(text)]


def read_number(match):
    """Return the Number of a match; one with a % sign is read as a fraction."""
    text = match.group().strip(" ")
    value = Decimal(text.replace(",", "").replace("−", "-"))
    percent = match["percent"] is not None
    whole = match["digits"].replace(",", "").isdigit() and not percent
    return Number(text, value / 100 if percent else value, "tolerance-integers" if whole else "tolerance")


def differences(reference, result, allowed):
    """Return what differs between two texts, one line each; nothing when they agree within `allowed`."""
    if NUMBER.sub("\0", reference) != NUMBER.sub("\0", result):
        return ["the text around the numbers"]
    pairs = zip(read_numbers(reference), read_numbers(result), strict=True)
    return [
        f"stored {old.text}, now {new.text}: {limit(old, allowed)}"
        for old, new in pairs
        if not agree(old, new, allowed)
    ]


def agree(old, new, allowed):
    """Say whether two numbers are the same text, or of the same kind and within that kind's tolerance."""
    if old.text == new.text:
        return True
    return old.kind == new.kind and old.kind in allowed and allowed[old.kind].allows(old.value, new.value)


def limit(number, allowed):
    """Say in words what a number is allowed."""
    if number.kind in allowed:
        return f"it may change by {allowed[number.kind]}"
    return f"it must be equal (no {number.kind} tag)"


class TolerantText(str):
    """A text that equals another one when their numbers agree within `allowed`: nbval only ever asks `!=`."""

    def __new__(cls, text, allowed):
        tolerant = super().__new__(cls, text)
        tolerant.allowed = allowed
        return tolerant

    def __eq__(self, other):
        return isinstance(other, str) and not differences(self, other, self.allowed)

    def __ne__(self, other):
        return not self == other

    __hash__ = None  # equal texts would need equal hashes, and "within a tolerance" has none


class TolerantCell(IPyNbCell):
    """A notebook cell whose outputs are compared within the tolerance of its tags."""

    def runtest(self):
        """Run the cell, then refuse a bad tag: last, so that later cells find what this one defines."""
        try:
            super().runtest()
        finally:
            if self.tag_error:
                self.raise_cell_error(self.tag_error)

    def sanitize(self, s):
        """Return the sanitized output as a text that knows its tolerance; nbval compares these."""
        clean = super().sanitize(s)
        return TolerantText(clean, self.allowed) if isinstance(clean, str) else clean

    def format_output_compare(self, key, left, right):
        """Report the stored and the new output as nbval does, then each difference and what was allowed."""
        super().format_output_compare(key, str(left), str(right))
        if isinstance(left, str):
            self.comparison_traceback.append("Beyond the tolerance:")
            self.comparison_traceback += [f"  {line}" for line in differences(left, right, self.allowed)]


def pytest_configure(config):
    """Stop at once when nbval no longer has the methods this plugin builds on."""
    missing = [name for name in HOOKED if not callable(getattr(IPyNbCell, name, None))]
    if missing:
        raise pytest.UsageError(f"nbval_tolerance.py does not fit this nbval: IPyNbCell lacks {missing}.")


def pytest_itemcollected(item):
    """Turn each notebook cell that has a tolerance tag into a TolerantCell."""
    if not isinstance(item, IPyNbCell):
        return
    allowed, tag_error = {}, None
    try:
        allowed = read_tags(item.cell.metadata.get("tags", []))
    except ValueError as error:
        tag_error = str(error)
    if allowed or tag_error:
        item.__class__ = TolerantCell
        item.allowed, item.tag_error = allowed, tag_error
