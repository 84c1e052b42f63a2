"""The one error that a person can mend, and the checks that raise it."""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")
_NAME = re.compile(r"[\w.-]{1,60}")


class Stopped(Exception):
    """Ctrl-C, where a sentence of its own says what of the work is kept."""


class InputError(ValueError):
    """Bad input from outside: one sentence that names the field, the value and what is allowed.

    The command line prints the sentence and exits with a non-zero status; notebooks and the page
    show it as it is. Anything else that is raised is a defect of the program.
    """


def number(field: str, value: object, low: float, high: float = math.inf) -> float:
    """Return `value` as a float if it is a finite number in [low, high], else raise InputError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{field} is {shown(value)}, but must be a finite number.")
    value = int(value) if isinstance(value, Integral) else float(value)  # NumPy's are neither
    if not abs(value) <= sys.float_info.max:  # NaN, infinity, or a whole number beyond any float
        raise InputError(f"{field} is {shown(value)}, but must be a finite number.")
    if not low <= value <= high:
        raise InputError(f"{field} is {shown(value)}, but must be {_bounds(low, high)}.")
    return float(value)


def integer(field: str, value: object, low: int, high: float = math.inf) -> int:
    """Return `value` as an int if it is a whole number in [low, high], else raise InputError."""
    if isinstance(value, bool) or not isinstance(value, Integral):  # NumPy's are no int
        raise InputError(f"{field} is {shown(value)}, but must be a whole number.")
    whole = int(value)
    if not low <= whole <= high:
        raise InputError(f"{field} is {shown(whole)}, but must be {_bounds(low, high)}.")
    return whole


def choice(field: str, value: object, allowed: Sequence[T]) -> T:
    """Return `value` if it is one of `allowed`, else raise InputError that lists them."""
    for each in allowed:
        if type(value) is type(each) and value == each:  # True and 1.0 are no 1
            return each
    options = ", ".join(map(str, allowed))
    raise InputError(f"{field} is {shown(value)}, but must be one of: {options}.")


def name(field: str, value: object) -> str:
    """Return `value` if it can be a name in files and commands, else raise InputError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InputError(
            f"{field} is {shown(value)}, but must be 1 to 60 letters, digits, points, dashes and "
            "underscores."
        )
    return value


def text(field: str, value: object) -> str:
    """Return `value` if it is a text of 1 to 2000 characters, else raise InputError."""
    if not isinstance(value, str) or not 1 <= len(value) <= 2000:
        raise InputError(f"{field} is {shown(value)}, but must be a text of 1 to 2000 characters.")
    return value


def table(field: str, value: object, keys: Sequence[str]) -> Mapping[str, Any]:
    """Return `value` if it is a table with just these keys, else raise InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f"{field} is {shown(value)}, but must be a table of {', '.join(keys)}.")
    for key in value:
        if key not in keys:
            raise InputError(
                f"{field} has the field {shown(key)}, but knows only {', '.join(keys)}."
            )
    for key in keys:
        if key not in value:
            raise InputError(f"{field} lacks the field {key!r}.")
    return value


@contextmanager
def written_by(version: object, this: str) -> Iterator[None]:
    """Add to an InputError about a file that it is of another version of the program, if so."""
    try:
        yield
    except InputError as error:
        if version == this or not isinstance(version, str):
            raise
        why = f"; it was written by version {shown(version)} of this program, this is {this}"
        raise InputError(f"{str(error).removesuffix('.')}{why}.") from None


def shown(value: object) -> str:
    """Return `value` as Python writes it, cut to 80 characters."""
    try:
        written = repr(value)
    except (ValueError, RecursionError):  # a number of over 4300 digits, lists nested too deep
        return f"a {type(value).__name__} too large to show"
    return written if len(written) <= 80 else f"{written[:77]}..."


def _bounds(low: float, high: float) -> str:
    least, most = (str(end) if isinstance(end, int) else f"{end:g}" for end in (low, high))
    return f"at least {least}" if math.isinf(high) else f"from {least} to {most}"
