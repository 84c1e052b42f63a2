"""The checks of `errors.py`: what they let through, and the sentence that they raise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ANYTHING

from codesign_kernel.errors import InputError, choice, integer, name, number, shown, table, text


def sentence(check: Callable[..., Any], *arguments: Any) -> str:
    """What the InputError says that the check raises."""
    with pytest.raises(InputError) as caught:
        check("field", *arguments)
    return str(caught.value)


@pytest.mark.parametrize(("value", "kept"), [(1, 1.0), (0, 0.0), (2.5, 2.5), (10, 10.0)])
def test_number_keeps_numbers_within_its_bounds(value: float, kept: float) -> None:
    found = number("field", value, 0, 10)
    assert (found, type(found)) == (kept, float)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(1), np.uint8(0)])
def test_number_takes_those_of_numpy_and_returns_a_float(value: Any) -> None:
    found = number("field", value, 0, 1)
    assert (found, type(found)) == (float(value), float)
    assert sentence(number, np.float32(0.5), 1) == "field is 0.5, but must be at least 1."


@pytest.mark.parametrize("value", [-1e-9, 10.001, -5, 11])
def test_number_names_its_bounds(value: float) -> None:
    assert sentence(number, value, 0, 10) == f"field is {value!r}, but must be from 0 to 10."


def test_number_without_an_upper_bound() -> None:
    assert number("field", 1e308, 1) == 1e308
    assert sentence(number, 0.5, 1) == "field is 0.5, but must be at least 1."


@pytest.mark.parametrize(
    "value", [True, "1", None, [1], float("nan"), float("inf"), -float("inf"), 10**400, 1j]
)
def test_number_refuses_what_is_no_finite_number(value: object) -> None:
    assert sentence(number, value, -np.inf) == (
        f"field is {shown(value)}, but must be a finite number."
    )


def test_integer_keeps_whole_numbers_within_its_bounds() -> None:
    assert [integer("field", value, 1, 3) for value in (1, 2, 3)] == [1, 2, 3]
    assert sentence(integer, 0, 1, 3) == "field is 0, but must be from 1 to 3."
    assert sentence(integer, -1, 0) == "field is -1, but must be at least 0."


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint32])
def test_integer_takes_those_of_numpy_and_returns_an_int(kind: type[np.integer[Any]]) -> None:
    found = integer("field", kind(3), 1, 3)
    assert (found, type(found)) == (3, int)
    assert sentence(integer, kind(4), 1, 3) == "field is 4, but must be from 1 to 3."


@pytest.mark.parametrize("value", [np.True_, np.float64(1), np.array([1])])
def test_integer_refuses_what_else_numpy_has(value: object) -> None:
    assert sentence(integer, value, 0) == f"field is {value!r}, but must be a whole number."


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], float("nan"), float("inf")])
def test_integer_refuses_what_is_no_whole_number(value: object) -> None:
    assert sentence(integer, value, 0) == f"field is {value!r}, but must be a whole number."


def test_choice_keeps_type_and_value() -> None:
    assert choice("field", "b", ("a", "b")) == "b"
    assert choice("field", 3, [1, 3]) == 3
    assert sentence(choice, "c", ("a", "b")) == "field is 'c', but must be one of: a, b."
    others: list[object] = [True, 1.0, "1", None, [1], {}]
    for value in others:
        assert "must be one of: 1, 2." in sentence(choice, value, (1, 2))


@pytest.mark.parametrize("value", ["ecp5-85f", "a", "v1.0_x", "é" * 60])
def test_name_keeps_plain_names(value: str) -> None:
    assert name("field", value) == value


@pytest.mark.parametrize("value", ["", "a b", "a@b", "a/b", "a\n", "a" * 61, None, 3, ["a"]])
def test_name_refuses_what_would_break_a_key_or_a_path(value: object) -> None:
    assert sentence(name, value).startswith(f"field is {shown(value)}, but must be 1 to 60 letters")


def test_text_has_a_length() -> None:
    assert text("field", "two\nlines") == "two\nlines"
    others: list[object] = ["", "a" * 2001, 3, None, ["a"]]
    for value in others:
        assert sentence(text, value).endswith("must be a text of 1 to 2000 characters.")


def test_table_has_just_its_keys() -> None:
    assert table("field", {"a": 1, "b": 2}, ("a", "b")) == {"a": 1, "b": 2}
    assert sentence(table, [1], ("a", "b")) == "field is [1], but must be a table of a, b."
    assert sentence(table, {"a": 1}, ("a", "b")) == "field lacks the field 'b'."
    assert sentence(table, {"a": 1, "b": 2, "c": 3}, ("a", "b")) == (
        "field has the field 'c', but knows only a, b."
    )


def test_shown_is_short() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert shown("x" * 1000) == "'" + "x" * 76 + "..."
    assert shown(10**5000) == "a int too large to show"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list too large to show"
    while deep:  # taken apart from outside: freeing it at once may need too deep a stack
        deep = deep.pop()


@given(ANYTHING)
def test_every_check_returns_the_value_or_says_one_sentence(value: Any) -> None:
    checks: list[Callable[[], object]] = [
        lambda: number("field", value, 0, 9),
        lambda: integer("field", value, 0, 9),
        lambda: choice("field", value, ("a", 1)),
        lambda: name("field", value),
        lambda: text("field", value),
        lambda: table("field", value, ("a",)),
    ]
    for check in checks:
        try:
            assert check() == value
        except InputError as error:
            said = str(error)
            assert said.startswith("field ")
            assert said.endswith(".")
            assert "\n" not in said
            assert len(said) < 250


@given(st.integers())
def test_bounds_are_inclusive(value: int) -> None:
    assert integer("field", value, value, value) == value
    for low, high in ((value + 1, value + 2), (value - 2, value - 1)):
        with pytest.raises(InputError):
            integer("field", value, low, high)
