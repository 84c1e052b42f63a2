"""A table of one's own becomes numbers, and what was decided is told; else a sentence says why."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign_kernel.errors import InputError
from codesign_kernel.table import LEVELS, Problem, prepare, read_table

PATH = Path("own.csv")


def frame(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns).astype(str)


def made(target: str = "y", prior: str | None = None, **columns: object) -> Problem:
    return prepare(frame(**columns), PATH, target, prior)


def assert_refused(words: str, call: object, *arguments: object, **named: object) -> None:
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    tiny.assert_one_sentence(str(caught.value))
    assert words in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_file_is_read_as_texts(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "own.csv"
    rows = ["\ufeffa, b ,", '"1,5",NA,x', "", "2, nan,y"]
    text = "\n".join(rows).replace(",", separator).replace(f"1{separator}5", "1,5")
    path.write_text(text, encoding="utf-8")
    assert read_table(path).to_dict("list") == {
        "a": ["1,5", "", "2"],
        "b": ["", "", ""],
        "column 3": ["x", "", "y"],
    }


@pytest.mark.parametrize("blank", ["\n", " \n\r\n", "\ufeff\n"])
def test_blank_lines_before_the_header_are_left_out(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(f"{blank}a;b\n1;2\n".encode())
    assert read_table(path).to_dict("list") == {"a": ["1"], "b": ["2"]}
    path.write_bytes(f"{blank}a;b\n1;2\n1;2;3\n".encode())
    line = blank.count("\n") + 3
    assert_refused(f"line {line} of {path} has 3 fields", read_table, path)


def test_none_and_a_dash_are_missing_among_numbers_and_a_level_among_texts(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "number,act,sign,only,mixed\n1,relu,x,none,3\nNone,none,-,-,n/a\n-,NONE,NA,none,-\n2.5,null,x,,slip\n"
    )
    assert read_table(path).to_dict("list") == {
        "number": ["1", "", "", "2.5"],
        "act": ["relu", "none", "NONE", ""],
        "sign": ["x", "-", "", "x"],
        "only": ["none", "-", "none", ""],
        "mixed": ["3", "", "-", "slip"],
    }
    kinds = ["none", "relu", "none", "tanh"] * 5
    frame(y=range(20), act=kinds).to_csv(path, index=False)
    problem = prepare(read_table(path), path, "y")
    assert (len(problem.y), problem.features) == (20, ["act"])
    np.testing.assert_array_equal(problem.X[:, 0], [kind == "none" for kind in kinds])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty, but must be a CSV table with a header"),
        (b"a,b\n1,\xff\n", "is not a text in UTF-8"),
        (b"\xff\xfea,b", "is not a text in UTF-8"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 of"),
        (b"a,b,a\n1,2,3\n", "has more than one column 'a'"),
        (b'a,b\n"1,2\n', "is damaged or no CSV table"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    assert_refused(words, read_table, tmp_path / "own.csv")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused("cannot be read: No such file", read_table, tmp_path / "own.csv")
    assert_refused("cannot be read: Is a directory", read_table, tmp_path)


def test_columns_enter_as_they_are() -> None:
    problem = made(prior="p", y=[1, 2, 4, 3], p=[2, 3, 9, 5], a=[0, 1, 1, 0], kind=list("uvvu"))
    np.testing.assert_array_equal(problem.y, [1, 2, 4, 3])
    np.testing.assert_array_equal(problem.X[:, problem.prior], [2, 3, 9, 5])
    np.testing.assert_array_equal(problem.X[:, 1], [0, 1, 1, 0])
    assert problem.features == ["a", "kind"]
    assert problem.X.shape == (4, 3)  # two values of a text need one column
    assert problem.notes == ["prior: p; features: a, kind"]
    assert problem.positive
    assert problem.inputs(False) is problem.X


def test_a_text_column_has_a_column_for_each_value() -> None:
    kinds = ["u", "v", "w"] * 4
    problem = made(y=range(12), kind=kinds, a=np.arange(12) % 5)
    expected = np.column_stack([[kind == level for kind in kinds] for level in "uvw"])
    np.testing.assert_array_equal(problem.X[:, :3], expected)
    many = [f"k{i}" for i in range(LEVELS + 5)] * 3
    problem = made(y=range(len(many)), kind=many)
    assert problem.X.shape == (len(many), LEVELS)
    assert f"has {LEVELS + 5} values: the {LEVELS} most frequent" in problem.notes[1]


def test_wide_columns_enter_by_their_logarithm_beside_a_target_that_does_not() -> None:
    wide, narrow, prior = np.array([1.0, 10, 100, 50]), np.array([1.0, 2, 3, 3]), [1, 20, 9, 9]
    problem = made(prior="p", y=[0, 1, 2, 7], wide=wide, narrow=narrow, p=prior)
    np.testing.assert_allclose(problem.inputs(True)[:, 1], wide)
    np.testing.assert_allclose(problem.inputs(False)[:, 1], np.log(wide))
    np.testing.assert_allclose(problem.inputs(False)[:, 2], narrow)
    np.testing.assert_allclose(problem.inputs(False)[:, 0], prior)  # stays in the target's unit


@pytest.mark.parametrize(
    ("columns", "rows", "features", "note"),
    [
        ({"a": [1, 2, 1, 3], "b": [5, 5, 5, 5]}, 4, ["a"], "b left out: it is '5' in all rows"),
        ({"a": [1, 2, 1, 3], "b": list("uvwx")}, 4, ["a"], "b left out: it names 4 of 4 rows"),
        ({"a": [1, 2, 1, 3], "b": [7, 8, 9, 10]}, 4, ["a"], "b left out: it counts the rows"),
        ({"a": [1, 2, 1, 3], "b": ["", "", "", 1]}, 4, ["a"], "b left out: it is missing in 3 of"),
        (
            {"a": [1, 2, 1, 3], "b": ["", 7, 1, 8]},
            3,
            ["a", "b"],
            "1 row left out: a value is miss",
        ),
        ({"y": ["", 2, 3, 5], "a": [1, 2, 1, 3]}, 3, ["a"], "1 row left out: y is missing"),
        ({"y": [1, 2, 2, 5], "a": [1, 3, 3, 2]}, 3, ["a"], "1 row left out, the same as another"),
        ({"a": [1, 2, 1, 3], "b": [2, 4, 6, 10]}, 4, ["a", "b"], "b all but equals y"),
    ],
)
def test_what_is_left_out_is_told(
    columns: dict[str, list[object]], rows: int, features: list[str], note: str
) -> None:
    problem = made(**({"y": [1, 2, 3, 5]} | columns))
    assert (len(problem.y), problem.features) == (rows, features)
    assert len(problem.notes) == 2
    assert note in problem.notes[1]


@pytest.mark.parametrize(
    ("cells", "looks"),
    [
        ([f"0,{i}" for i in range(1, 41)], "a decimal comma, such as '0,1'; write plain ones"),
        (["-1,5e3", ",5", "7", "8"] * 10, "a decimal comma, such as '-1,5e3'"),
        (["0,125", "0,250"] * 20, "a decimal comma, such as '0,125'"),
        (["1,125", "2,250"] * 20, "a decimal comma or a thousands separator, such as '1,125'"),
        (["4 000", "900", "12 000 000"] * 10, "a thousands separator, such as '4 000'"),
        ([f"{i} 000" for i in range(1, 41)], "a thousands separator, such as '1 000'; write plain"),
        (["1.234,5", "4.000.000,25"] * 10, "a thousands separator, such as '1.234,5'"),
        (["1,234,567.5", "1,000"] * 10, "a thousands separator, such as '1,234,567.5'"),
        (
            [f"{i} ms" for i in range(40)],
            "a unit, such as '0 ms'; write plain ones, such as 1234.5, all in one unit",
        ),
        (["5,5 µs", "2e3ms", "1 MB/s", "7 ms"] * 10, "a unit, such as '5,5 µs'"),
        (["5,5 µs", "2e3 µs", "ten"] * 10, "a unit, such as '5,5 µs'"),
        (["10%", "20 %", "30%"] * 10, "a unit, such as '10%'"),
        (["relu", "tanh", "5 ms"] * 10, ""),
        (["1a", "1b", "2a", "2b"] * 10, ""),
        (["w8k3-w24k5", "w16k3-w24k5"] * 10, ""),
        (["8x8x1w32f32", "4x8x1w16f16"] * 10, ""),
        (["2024-01-02", "2024-01-03", "12:30"] * 10, ""),
        (["3x3", "5x5", "1x1"] * 10, ""),
    ],
)
def test_numbers_written_otherwise_are_told(cells: list[str], looks: str) -> None:
    rows = len(cells)
    problem = made(y=np.arange(rows) % 7, a=np.arange(rows) % 5, b=cells)
    told = [note for note in problem.notes if "looks like" in note]
    assert len(told) == bool(looks)
    distinct = len({*cells}) == rows
    assert problem.features == (["a"] if distinct else ["a", "b"])
    how = "left out: it" if distinct else "is taken for categories, but"
    for note in told:
        assert note.startswith(f"b {how} looks like numbers with ")
        assert looks in note


def test_a_target_written_otherwise_is_refused_with_the_reason() -> None:
    table = frame(y=["0,3", "0,5", "1", "0,7"], a=[1, 2, 4, 3])
    assert_refused(
        "--target 'y' is '0,3' in row 1 of own.csv, but must be a number (0, or 1e-100 to 1e+100 "
        "in size): the column looks like numbers with a decimal comma, such as '0,3'; write plain "
        "ones, such as 1234.5.",
        prepare, table, PATH, "y",
    )  # fmt: skip


def test_notes_are_there_when_a_table_is_refused() -> None:
    notes: list[str] = []
    table = frame(y=[1, 2, 3, 5], a=[1, 1, 1, 1], b=["0,1", "0,2", "0,3", "0,4"])
    with pytest.raises(InputError, match="has no column left that could predict 'y'"):
        prepare(table, PATH, "y", notes=notes)
    assert notes[0] == "a left out: it is '1' in all rows"
    assert notes[1].startswith("b left out: it looks like numbers with a decimal comma")


def test_a_column_that_is_named_may_count_the_rows() -> None:
    table = frame(y=[1, 2, 3, 5], a=[1, 2, 1, 3], b=[7, 8, 9, 10])
    assert prepare(table, PATH, "y", None, ["b"]).features == ["b"]
    assert made(y=[1, 2, 3, 5], b=[7, 8, 9, 10]).features == ["b"]


def test_a_prior_without_a_logarithm_is_told() -> None:
    problem = made(prior="p", y=[1, 2, 3, 5], p=[0, 1, 2, 4])
    assert not problem.positive
    assert "prior p is 0 in a row, so no logarithm is taken" in problem.notes[1]
    assert not made(y=[0, 1, 2, 4], a=[1, 2, 1, 3]).positive


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "z"}, "--target is 'z', but must be a column of own.csv: y, a, p, t, one"),
        ({"prior": "z"}, "--prior is 'z', but must be a column of own.csv"),
        ({"features": ["a", "z"]}, "--features is 'z', but must be a column of own.csv"),
        ({"features": [""]}, "--features is '', but must be a column of own.csv"),
        ({"features": ["a", "y"]}, "--features names the target 'y', but must not"),
        ({"features": ["a", "a"]}, "--features is 'a,a', but must name a column once"),
        ({"prior": "y"}, "--prior names the target 'y', but must not"),
        ({"target": "t"}, "--target 't' is 'u' in row 1 of own.csv, but must be a number"),
        ({"prior": "t"}, "--prior 't' is 'u' in row 1 of own.csv, but must be a number"),
        (
            {"features": ["odd"]},
            "feature 'odd' is 'slip' in row 3 of own.csv, but must be a number",
        ),
        ({"features": ["inf"]}, "feature 'inf' is 'inf' in row 2 of own.csv, but must be a number"),
        ({"target": "one"}, "target 'one' is 1 in all rows, but must vary"),
        ({"target": "near"}, "target 'near' varies by"),
        ({"prior": "one"}, "prior 'one' is 1 in all rows, but must vary"),
        ({"target": "none"}, "has no row in which none and all that predicts it is given"),
        ({"features": ["one"]}, "has no column left that could predict 'y'"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: dict[str, object], words: str) -> None:
    table = frame(
        y=[1, 2, 3, 5], a=[1, 2, 1, 3], p=[1, 3, 4, 4], t=list("uvuv"), one=[1, 1, 1, 1],
        near=[1e12, 1e12 + 1, 1e12, 1e12], odd=[1, 2, "slip", 4], inf=[1, "inf", 3, 3],
        none=["", "", "", ""],
    )  # fmt: skip
    assert_refused(words, prepare, table, PATH, **({"target": "y"} | arguments))


cells = st.one_of(
    st.text("0123456789.-eEainfu ,;\"'_", max_size=6),
    st.floats(allow_nan=True).map(str),
    st.integers(-3, 3).map(str),
    st.sampled_from(["", "NA", "u", "v", "1e400", "5", "7"]),
)


@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=12),
    prior=st.sampled_from([None, "b"]),
    whole=st.booleans(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_becomes_finite_numbers_or_is_refused(
    tmp_path: Path, rows: list[list[str]], prior: str | None, whole: bool
) -> None:
    path = tmp_path / "own.csv"
    table = pd.DataFrame(rows, columns=["y", "a", "b"])
    if whole:  # else hardly any table has a target
        table["y"] = np.arange(len(table)) + 0.5
    table.to_csv(path, index=False)
    try:
        problem = prepare(read_table(path), path, "y", prior)
    except InputError as error:
        tiny.assert_one_sentence(str(error))
        return
    assert 2 <= len(problem.y) <= len(rows)
    for X in (problem.X, problem.inputs(False)):
        assert X.shape[0] == len(problem.y)
        assert np.isfinite(X).all()
    assert problem.notes
