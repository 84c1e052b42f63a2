"""Architecture spaces: the presets, the genomes against a full listing, and bad input."""

import copy
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ANYTHING, spaces

from codesign_kernel.errors import InputError
from codesign_kernel.space import (
    Architecture,
    SearchSpace,
    load_space,
    presets,
    space_of,
    to_table,
)
from codesign_kernel.workload import totals

SEEDS = st.integers(0, 2**32 - 1)
TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": "digits",
    "input": [8, 8, 1],
    "classes": 10,
    "stem": {"width": 8, "kernel": 3, "stride": 1},
    "stages": [
        {"widths": [8, 16], "depths": [1, 2], "kernels": [1, 3], "stride": 1},
        {"widths": [24], "depths": [2], "kernels": [1, 5], "stride": 2},
    ],
}
TOML = """
name = "mine"
dataset = "images:/data/leaves"
input = [48, 64, 3]
classes = 7
stem = { width = 16, kernel = 5, stride = 2 }

[[stages]]
widths = [16, 24]
depths = [1, 3]
kernels = [1, 3, 7]
stride = 1

[[stages]]
widths = [32]
depths = [2]
kernels = [3]
stride = 2
"""


def as_set(genomes: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, genomes.tolist()))


def listing(space: SearchSpace) -> set[Architecture]:
    """All architectures of the space, from the definition and nothing of the module's code."""
    stages = []
    for stage in space.stages:
        kernels = [
            row
            for depth in stage.depths
            for row in product(stage.kernels, repeat=depth)
            if max(row) >= 3
        ]
        stages.append(list(product(stage.widths, kernels)))
    return {
        Architecture(tuple(w for w, _ in rows), tuple(k for _, k in rows))
        for rows in product(*stages)
    }


@pytest.mark.parametrize(
    ("name", "sides", "size", "least", "most", "parameters"),
    [
        ("digits", (8, 8, 1), 108**2, 60_064, 3_281_728, 104_578),
        ("fashion", (28, 28, 1), 72 * 348 * 464, 183_120, 8_963_392, 271_306),
        ("fashion-wide", (28, 28, 1), 108 * 180 * 130, 310_128, 19_256_448, 474_434),
        ("cifar", (32, 32, 3), 20 * 108 * 348 * 12, 2_507_392, 56_411_392, 658_762),
        ("imagenet", (224, 224, 3), 243 * 348 * 168 * 12, 420_384_768, 15_302_918_144, 67_610_728),
    ],
)
def test_presets_have_the_sizes_they_are_meant_to_have(
    name: str, sides: tuple[int, ...], size: int, least: int, most: int, parameters: int
) -> None:
    space = load_space(name)
    assert (space.name, space.input, space.size) == (name, sides, size)
    macs, weights = totals(space, np.stack(space.extremes()))
    assert macs.tolist() == [least, most]
    assert weights[1] == parameters


def test_imagenet_is_of_the_size_of_resnets() -> None:
    space = load_space("imagenet")
    macs, _ = totals(space, space.sample(4000, np.random.default_rng(0)))
    assert 2e9 < np.median(macs) < 4e9
    assert space.stages[-1].widths[-1] == 2048


def test_presets_are_named() -> None:
    assert presets() == ("cifar", "digits", "fashion", "fashion-wide", "imagenet")
    with pytest.raises(InputError, match=", fashion-wide, imagenet, a path that ends in"):
        load_space("mnist")


@given(spaces())
def test_enumeration_is_the_listing(space: SearchSpace) -> None:
    genomes = space.enumerate()
    found = [space.decode(genome) for genome in genomes]
    assert len(found) == space.size
    assert set(found) == listing(space)
    assert len(set(found)) == len(as_set(genomes)) == len(set(map(str, found))) == space.size
    assert genomes.tolist() == sorted(genomes.tolist())


@given(spaces(), SEEDS)
def test_what_is_drawn_is_of_the_space(space: SearchSpace, seed: int) -> None:
    every = as_set(space.enumerate())
    rng = np.random.default_rng(seed)
    one, two = space.sample(40, rng), space.sample(40, rng)
    drawn = [one, two, space.cross(one, two, rng)]
    drawn += [space.mutate(drawn[-1], rng, rate) for rate in (0.0, 0.1, 1.0)]
    for genomes in drawn:
        assert as_set(genomes) <= every
        assert genomes.shape == (40, len(space.radix))


@given(spaces(), SEEDS)
def test_genomes_and_texts_round_trip(space: SearchSpace, seed: int) -> None:
    for genome in space.sample(20, np.random.default_rng(seed)):
        architecture = space.decode(genome)
        np.testing.assert_array_equal(space.encode(architecture), genome)
        assert Architecture.parse(str(architecture)) == architecture


@given(spaces(), SEEDS)
def test_what_need_not_change_stays(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    genomes = space.sample(30, rng)
    np.testing.assert_array_equal(space.mutate(genomes, rng, 0.0), genomes)
    np.testing.assert_array_equal(space.cross(genomes, genomes, rng), genomes)
    np.testing.assert_array_equal(space.repair(genomes, rng), genomes)


@given(SEEDS)
def test_repair_adds_one_large_kernel(seed: int) -> None:
    space = space_of(TINY)
    bare = np.array([[1, 1, 0, 0, 0, 0, 0, 0]] * 50)
    fixed = space.repair(bare, np.random.default_rng(seed))
    assert not bare[:, 2:].any()  # the argument is untouched
    np.testing.assert_array_equal(fixed[:, :2], bare[:, :2])
    for genes in (slice(2, 4), slice(6, 8)):
        # Both blocks are there, so the large kernel comes to lie in either, and in one only.
        np.testing.assert_array_equal(fixed[:, genes].sum(axis=1), 1)
        assert as_set(fixed[:, genes]) == {(0, 1), (1, 0)}


@given(spaces(), SEEDS)
def test_children_have_their_parents_genes(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = space.sample(30, rng), space.sample(30, rng)
    child = space.cross(one, two, rng)
    for genes in space.slices:
        own = slice(genes.start, genes.start + 2)  # width and depth: repair leaves these alone
        assert ((child[:, own] == one[:, own]) | (child[:, own] == two[:, own])).all()


def test_both_parents_give_half_of_the_genes() -> None:
    space = load_space("imagenet")
    low, high = (np.tile(end, (20_000, 1)) for end in space.extremes())
    widths = [genes.start for genes in space.slices]
    child = space.cross(low, high, np.random.default_rng(0))[:, widths]
    share = (child == high[:, widths]).mean(axis=0)
    np.testing.assert_allclose(share, 0.5, atol=4 * 0.5 / 20_000**0.5)


def test_mutation_redraws_genes_at_its_rate() -> None:
    space = load_space("imagenet")
    rng = np.random.default_rng(0)
    genomes = space.sample(20_000, rng)
    widths = [genes.start for genes in space.slices]
    changed = space.mutate(genomes, rng, 0.3)[:, widths] != genomes[:, widths]
    # A redrawn width is another one in two of three cases; 4 standard errors.
    np.testing.assert_allclose(changed.mean(axis=0), 0.3 * 2 / 3, atol=4 * 0.4 / 20_000**0.5)


def test_samples_are_uniform_in_widths_and_depths_and_cover_a_tiny_space() -> None:
    space = space_of(TINY)
    genomes = space.sample(20_000, np.random.default_rng(0))
    assert as_set(genomes) == as_set(space.enumerate())
    np.testing.assert_allclose(genomes[:, :2].mean(axis=0), 0.5, atol=4 * 0.5 / 20_000**0.5)
    again = space.sample(20_000, np.random.default_rng(0))
    np.testing.assert_array_equal(again, genomes)


def test_extremes_are_literal() -> None:
    space = space_of(TINY)
    ends = [str(space.decode(genome)) for genome in space.extremes()]
    assert ends == ["w8k3-w24k51", "w16k33-w24k55"]


@given(spaces())
def test_extremes_have_the_least_and_the_most_macs(space: SearchSpace) -> None:
    macs, parameters = totals(space, space.enumerate())
    ends, sizes = totals(space, np.stack(space.extremes()))
    assert (ends[1], sizes[1]) == (macs.max(), parameters.max())
    least = [space.stem_width, *(stage.widths[0] for stage in space.stages)]
    if least == sorted(least):
        assert (ends[0], sizes[0]) == (macs.min(), parameters.min())


def test_features_describe_the_architecture() -> None:
    space = space_of(TINY)
    genome = space.encode(Architecture.parse("w16k3-w24k15"))
    values, names = space.features(genome[None])
    assert dict(zip(names, values[0].tolist(), strict=True)) == {
        "s1_width": 16, "s1_depth": 1, "s1_k1": 3, "s1_k2": 0,
        "s2_width": 24, "s2_depth": 2, "s2_k1": 1, "s2_k2": 5,
    }  # fmt: skip
    assert values.dtype == np.float64


def test_enumeration_has_a_limit() -> None:
    with pytest.raises(InputError, match=r"fashion holds 1\.16e\+07 architectures, but at most"):
        load_space("fashion").enumerate()
    assert len(load_space("digits").enumerate()) == 11_664


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("w8k3", "architecture w8k3 has 1 stages, but space tiny has 2"),
        ("w8k3-w24k15-w8k3", "has 3 stages"),
        ("w24k3-w24k15", "width of stage 1 of w24k3-w24k15 is 24, but must be one of: 8, 16"),
        ("w8k3-w24k5", "depth of stage 2 of w8k3-w24k5 is 1, but must be one of: 2"),
        ("w8k5-w24k15", "kernel of stage 1 of w8k5-w24k15 is 5, but must be one of: 1, 3"),
        ("w8k3-w24k11", "all kernels of stage 2 of w8k3-w24k11 are 1, but one must be 3"),
        ("w0k0-w24k15", "width of stage 1 of w0k0-w24k15 is 0"),
    ],
)
def test_the_space_says_why_it_does_not_hold_an_architecture(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        space_of(TINY).encode(Architecture.parse(text))


@pytest.mark.parametrize(
    "text", ["", "-", "w8", "k3", "w08k3", "w8k3-", "w8k", "W8K3", "w8k3 ", "w-8k3"]
)
def test_other_texts_are_no_architecture(text: str) -> None:
    with pytest.raises(InputError, match=r"architecture is .*, but must look like w16k35-w32k3"):
        Architecture.parse(text)


def test_an_architecture_has_as_many_widths_as_kernels() -> None:
    with pytest.raises(InputError, match="widths of 2 and kernels of 1 stages"):
        Architecture((8, 16), ((3,),))


def test_architecture_text_is_literal() -> None:
    architecture = Architecture((16, 32), ((3, 5), (3,)))
    assert str(architecture) == "w16k35-w32k3"
    assert Architecture.parse("w16k35-w32k3") == architecture


ALMOST = st.text("wk-0123456789x ", max_size=20) | st.from_regex(
    r"w[0-9]{1,5}k[0-9]{0,17}(-w[0-9]{1,4}k[1357]{1,3})?", fullmatch=True
)


@given(st.text() | ALMOST)
def test_any_text_is_an_architecture_or_bad_input(text: str) -> None:
    try:
        architecture = Architecture.parse(text)
    except InputError:
        return
    assert str(architecture) == text


@given(spaces())
def test_tables_round_trip(space: SearchSpace) -> None:
    assert space_of(to_table(space)) == space
    assert space_of(json.loads(json.dumps(to_table(space)))) == space


def test_a_users_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML, encoding="utf-8")
    space = load_space(str(path))
    assert (space.name, space.dataset, space.classes) == ("mine", "images:/data/leaves", 7)
    assert (space.stem_width, space.stem_kernel, space.stem_stride) == (16, 5, 2)
    assert space.input == (48, 64, 3)
    assert space.stages[0].kernels == (1, 3, 7)
    # 2 widths of a 1-block stage with 2 large kernels or of a 3-block one with 27 - 1 choices.
    assert [stage.size for stage in space.stages] == [2 * (2 + 26), 1]


@pytest.mark.parametrize(
    "content", ["name = ", "= 3", "[[stages]\n", 'name = "a"\nname = "b"', "a = " + "[" * 10_000]
)
def test_malformed_toml_is_bad_input(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.toml is not valid TOML"):
        load_space(str(path))


def test_an_absent_toml_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read: No such file"):
        load_space(str(tmp_path / "none.toml"))


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """TINY with the field at `path` replaced."""
    table: Any = copy.deepcopy(TINY)
    place = table
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(table)


FIRST = ("stages", 0)
NUMBERS: list[Any] = [0, -8, 7.5, 8.0, float("nan"), float("inf"), 10**400, True, "8", None, [8]]
LISTS: list[Any] = [[], 8, "8", {"8": 8}, None, [[8]], [True], [8.0], [8, 8], [24, 8], [8, "16"]]


@pytest.mark.parametrize(
    ("path", "bad", "says"),
    [
        (("name",), [*NUMBERS[:-3], "", "a b", "../a", "x" * 61, []], "name of space"),
        (("dataset",), [*NUMBERS[:-3], "", "x" * 2001, []], "dataset of space"),
        (("input",), [*NUMBERS, [], [8, 8], [8] * 4, [8, 8, 0], [8, 8, 1.0]], "input of space"),
        (("input",), [[8, 8, True], [8, 8, 4097], [8, -8, 1], [8, float("nan"), 1]], "input of"),
        (("classes",), [*NUMBERS, 1, 65_537], "classes of space"),
        (("stem",), [*NUMBERS, [], {}], "stem of space"),
        (("stem", "width"), [*NUMBERS, 12, 4104], "stem width of space"),
        (("stem", "kernel"), [*NUMBERS, 2, 3.0, 9], "stem kernel of space"),
        (("stem", "stride"), [*NUMBERS, 2.0, 3], "stem stride of space"),
        (("stages",), [*NUMBERS[:-1], [], {}, TINY["stages"] * 9], "stages of space"),
        (("stages",), [[8], [[]], [None], [{}]], "stage 1 of space"),
        ((*FIRST, "widths"), [*LISTS, [12], [0], [-8], [4104]], "widths of stage 1 of space"),
        ((*FIRST, "depths"), [*LISTS, [0], [17], [2, 1], [-1]], "depths of stage 1 of space"),
        ((*FIRST, "kernels"), [*LISTS, [1], [2], [3, 1], [3, 3]], "kernels of stage 1 of space"),
        ((*FIRST, "stride"), [*NUMBERS, 2.0, 3], "stride of stage 1 of space"),
    ],
)
def test_bad_fields_are_named(path: tuple[str | int, ...], bad: list[Any], says: str) -> None:
    for value in bad:
        with pytest.raises(InputError, match=f"^{says}"):
            space_of(changed(path, value))


@pytest.mark.parametrize("place", [(), ("stem",), FIRST], ids=str)
def test_missing_and_unknown_keys_are_named(place: tuple[str | int, ...]) -> None:
    whole: Any = TINY
    for step in place:
        whole = whole[step]
    for key in whole:
        less = {other: value for other, value in whole.items() if other != key}
        table = changed(place, less) if place else less
        with pytest.raises(InputError, match=f"lacks the field '{key}'"):
            space_of(table)
    table = changed((*place, "surplus"), 1)
    with pytest.raises(InputError, match="has the field 'surplus', but knows only"):
        space_of(table)


FIELDS: list[tuple[str | int, ...]] = [
    *((key,) for key in TINY),
    *(("stem", key) for key in ("width", "kernel", "stride")),
    *((*FIRST, key) for key in ("widths", "depths", "kernels", "stride")),
    ("input", 1),
    FIRST,
    (*FIRST, "widths", 1),
]


@settings(max_examples=400)
@given(st.sampled_from(FIELDS), ANYTHING)
def test_any_value_of_any_field_is_a_space_or_bad_input(
    path: tuple[str | int, ...], value: Any
) -> None:
    try:
        space = space_of(changed(path, value))
    except InputError:
        return
    assert space_of(to_table(space)) == space
    genomes = np.concatenate([np.stack(space.extremes()), space.sample(3, np.random.default_rng())])
    for genome in genomes:
        np.testing.assert_array_equal(space.encode(space.decode(genome)), genome)


@given(ANYTHING)
def test_anything_else_than_a_table_is_bad_input(value: Any) -> None:
    with pytest.raises(InputError, match=r"^space "):
        space_of(value)
