"""Accelerators and devices: their texts, the grid of a device, and bad input."""

import tomllib
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ANYTHING, accelerators

from codesign_kernel.accelerator import (
    Accelerator,
    Accelerators,
    Coefficient,
    Device,
    device_of,
    devices,
    load_device,
)
from codesign_kernel.errors import InputError

NAMES = ("arria10-gx1150", "ecp5-25f", "ecp5-45f", "ecp5-85f")
WHOLE = {field.name for field in fields(Device) if field.type is int}
TEXTS = {field.name for field in fields(Device) if field.type is str}
NUMBERS = {field.name for field in fields(Device) if field.type is float}
POWERS = {field.name for field in fields(Device) if field.type is Coefficient}
PARTS = {"lut_parts", "ff_parts"}


def table() -> dict[str, Any]:
    """The plain data of a good device."""
    return asdict(load_device("ecp5-85f"))


@pytest.mark.parametrize(
    ("name", "dsp", "bram", "lut"),
    [
        ("ecp5-25f", 28, 56, 24_288),
        ("ecp5-45f", 72, 108, 43_848),
        ("ecp5-85f", 156, 208, 83_640),
        ("arria10-gx1150", 1518, 2713, 427_200),
    ],
)
def test_budgets_are_those_of_the_data_sheets(name: str, dsp: int, bram: int, lut: int) -> None:
    device = load_device(name)
    assert (device.name, device.dsp, device.bram, device.lut) == (name, dsp, bram, lut)


def test_every_device_says_where_its_figures_come_from() -> None:
    assert devices() == NAMES
    for name in NAMES:
        device = load_device(name)
        assert "Clock" in device.source
        for power in POWERS:
            coefficient = getattr(device, power)
            assert len(coefficient.source) > 20
            assert coefficient.within >= 1.5


def test_every_field_is_of_a_known_kind() -> None:
    assert {field.name for field in fields(Device)} == WHOLE | TEXTS | NUMBERS | POWERS | PARTS


@pytest.mark.parametrize("key", sorted(POWERS))
@pytest.mark.parametrize(
    ("part", "bad", "words"),
    [
        ("value", -1, "^value of {} of device is -1"),
        ("within", 0.5, "^within of {} of device is 0.5, but must be"),
        ("source", "", "^source of {} of device is ''"),
        ("mean", 1, "^{} of device has the field 'mean'"),
    ],
)
def test_bad_coefficients_are_named(key: str, part: str, bad: object, words: str) -> None:
    good = table()[key]
    for value in (good, 3, None):
        if value != good:
            with pytest.raises(InputError, match=f"^{key} of device is .*must be a table"):
                device_of(table() | {key: value})
    with pytest.raises(InputError, match=words.format(key)):
        device_of(table() | {key: good | {part: bad}})


@pytest.mark.parametrize("key", sorted(PARTS))
def test_parts_are_five_numbers(key: str) -> None:
    for bad in (3, "five!", [1, 2, 3, 4], {"a": 1}):
        with pytest.raises(InputError, match=f"^{key} of device is .*must be a list of 5 numbers"):
            device_of(table() | {key: bad})
    with pytest.raises(InputError, match=f"^{key} of device, number 2 is 'a'"):
        device_of(table() | {key: [1, "a", 2, 3, 4]})
    assert getattr(device_of(table() | {key: [1, 2, 3, 4, 5]}), key) == (1, 2, 3, 4, 5)


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=rf"'ecp6', but must be one of: {', '.join(NAMES)}, a pa"):
        load_device("ecp6")


def test_a_users_device_is_read(tmp_path: Path) -> None:
    shipped = resources.files("codesign_kernel").joinpath("devices", "ecp5-85f.toml")
    text = shipped.read_text(encoding="utf-8").replace("dsp = 156 ", "dsp = 100 ")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('name = "ecp5-85f"', 'name = "mine"'), encoding="utf-8")
    assert asdict(load_device(str(path))) == table() | {"name": "mine", "dsp": 100}
    assert load_device(str(path)) == device_of(tomllib.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("content", ["dsp = ", "[", "dsp = 1\ndsp = 2"])
def test_malformed_toml_is_bad_input(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.toml is not valid TOML"):
        load_device(str(path))
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        load_device(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("value", [True, "8", None, [8], {"a": 8}, float("nan"), float("inf"), -1])
@pytest.mark.parametrize("key", sorted(WHOLE | NUMBERS))
def test_bad_numbers_are_named(key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{key} of device is "):
        device_of(table() | {key: value})


@pytest.mark.parametrize("key", sorted(WHOLE))
def test_counts_are_whole_and_positive(key: str) -> None:
    for value in (0, 8.0, 10**9, 10**400):
        with pytest.raises(InputError, match=f"^{key} of device is "):
            device_of(table() | {key: value})


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("port_efficiency", [0, 0.001, 1.01]),
        ("clock_mhz", [0, 0.5, 20_000]),
        ("bram_kbit", [0, 0.5, 1e7]),
        ("bram_bits_wide", [18 * 1024 + 1]),  # no block RAM is less than one row deep
        ("clock_within", [0.9, 101]),
        ("name", ["", "a b", "a@b", "a/b", "x" * 61, 3, None]),
        ("label", ["", 3, None, ["a"]]),
        ("source", ["", 3, None, "x" * 2001]),
    ],
)
def test_bad_values_are_named(key: str, bad: list[object]) -> None:
    for value in bad:
        with pytest.raises(InputError, match=f"^{key} of device is "):
            device_of(table() | {key: value})


@pytest.mark.parametrize("key", sorted(WHOLE | NUMBERS | TEXTS))
def test_missing_keys_are_named(key: str) -> None:
    less = {other: value for other, value in table().items() if other != key}
    with pytest.raises(InputError, match=f"^device lacks the field '{key}'"):
        device_of(less)


def test_unknown_keys_are_named() -> None:
    with pytest.raises(InputError, match="has the field 'dsps', but knows only name, label, dsp"):
        device_of(table() | {"dsps": 1})


@settings(max_examples=300)
@given(st.sampled_from(sorted(WHOLE | NUMBERS | TEXTS)), ANYTHING)
def test_any_value_of_any_field_is_a_device_or_bad_input(key: str, value: Any) -> None:
    try:
        device = device_of(table() | {key: value})
    except InputError:
        return
    assert getattr(device, key) == value
    assert device_of(asdict(device)) == device


@given(ANYTHING)
def test_anything_else_than_a_table_is_bad_input(value: Any) -> None:
    with pytest.raises(InputError, match=r"^device "):
        device_of(value)


@given(accelerators())
def test_accelerator_texts_round_trip(accelerator: Accelerator) -> None:
    assert Accelerator.parse(str(accelerator)) == accelerator


def test_accelerator_text_is_literal() -> None:
    assert str(Accelerator(8, 4, 2, 16, 32)) == "8x4x2w16f32"
    assert Accelerator.parse("8x4x2w16f32") == Accelerator(8, 4, 2, 16, 32)


ALMOST = st.text("xwf-0123456789", max_size=20) | st.from_regex(
    r"[0-9]{1,5}x[0-9]{1,5}x[0-9]{1,4}w[0-9]{1,6}f[0-9]{1,6}", fullmatch=True
)


@given(st.text() | ALMOST)
def test_any_text_is_an_accelerator_or_bad_input(text: str) -> None:
    try:
        accelerator = Accelerator.parse(text)
    except InputError:
        return
    assert str(accelerator) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must look like 8x8x1w16f32"),
        ("8x8w16f32", "must look like 8x8x1w16f32"),
        ("08x8x1w16f32", "must look like 8x8x1w16f32"),
        ("-8x8x1w16f32", "must look like 8x8x1w16f32"),
        ("8x8x1w16f32 ", "must look like 8x8x1w16f32"),
        ("8.5x8x1w16f32", "must look like 8x8x1w16f32"),
        ("0x8x1w16f32", "PF of the accelerator is 0, but must be from 1 to 1024"),
        ("8x2000x1w16f32", "PC of the accelerator is 2000"),
        ("8x8x0w16f32", "PV of the accelerator is 0"),
        ("8x8x1w0f32", "weight_kib of the accelerator is 0"),
        ("8x8x1w16f99999", "feature_kib of the accelerator is 99999"),
    ],
)
def test_bad_accelerators_are_explained(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Accelerator.parse(text)


@pytest.mark.parametrize("value", [0, -1, 1025, 2.0, True, "8", None, float("nan")])
@pytest.mark.parametrize("lane", ["pf", "pc", "pv"])
def test_an_accelerator_checks_its_lanes(lane: str, value: Any) -> None:
    parts = asdict(Accelerator(8, 8, 1, 16, 16)) | {lane: value}
    with pytest.raises(InputError, match=f"^{lane.upper()} of the accelerator is "):
        Accelerator(**parts)


@given(st.lists(accelerators(), max_size=5))
def test_many_accelerators_are_arrays_of_each(rows: list[Accelerator]) -> None:
    many = Accelerators.of(rows)
    assert len(many) == len(rows)
    assert list(many) == rows
    assert list(many[::-1]) == rows[::-1]
    assert list(many[np.arange(len(rows)) > 1]) == rows[2:]
    assert {getattr(many, field.name).dtype for field in fields(many)} == {np.dtype(np.int64)}


def test_features_are_logarithms() -> None:
    many = Accelerators.of([Accelerator(8, 4, 1, 16, 64), Accelerator(2, 64, 2, 4, 1024)])
    values, names = many.features()
    assert names == ["pf", "pc", "pv", "weight_kib", "feature_kib"]
    assert values.tolist() == [[3, 2, 0, 4, 6], [1, 6, 1, 2, 10]]


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_uses_a_fair_part_of_the_device(name: str) -> None:
    device = load_device(name)
    grid = list(device.grid())
    products, kib = (device.dsp - 2) * device.products_per_dsp, device.bram * device.bram_kbit / 8
    powers = {1 << n for n in range(11)}
    assert len(set(grid)) == len(grid) > 200
    for one in grid:
        assert {one.pf, one.pc, one.pv, one.weight_kib, one.feature_kib} <= powers
        assert products / 16 <= one.pf * one.pc * one.pv <= products
        assert kib / 32 <= one.weight_kib + one.feature_kib <= kib


def test_the_grid_holds_the_published_engines() -> None:
    assert Accelerator(64, 64, 1, 512, 512) in set(load_device("arria10-gx1150").grid())
    shapes = {(one.pf, one.pc, one.pv) for one in load_device("ecp5-85f").grid()}
    assert {(4, 4, 1), (8, 8, 1), (16, 8, 1)} <= shapes
    assert (16, 16, 1) not in shapes


def test_the_grid_has_no_more_products_than_the_device() -> None:
    for dsp, most in ((15, 8), (16, 16), (31, 16), (32, 32)):
        grid = device_of(table() | {"dsp": dsp}).grid()
        assert (grid.pf * grid.pc * grid.pv).max() == most


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dsp": 100_000_000}, "dsp times products_per_dsp of device is 100,000,000, too large"),
        ({"bram": 100_000_000}, "bram of device is 100,000,000, 225,000,000 KiB in all, too large"),
    ],
)
def test_a_device_too_large_for_the_grid_is_named(change: dict[str, int], words: str) -> None:
    data = table() | {"products_per_dsp": 1, "bram_kbit": 18} | change
    with pytest.raises(InputError, match=f"^{words} for any engine of the grid: it must be at"):
        device_of(data)


def test_a_device_too_small_for_any_engine_has_an_empty_grid() -> None:
    assert len(device_of(table() | {"dsp": 1}).grid()) == 0
