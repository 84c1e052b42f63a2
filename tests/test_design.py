"""Designs: their texts and ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import accelerators

from codesign_kernel.accelerator import Accelerator, devices
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.space import Architecture

TEXT = "w16k35-w32k3@8x8x1w16f32@ecp5-85f"
KERNELS = st.lists(st.sampled_from((1, 3, 5, 7)), min_size=1, max_size=5).map(tuple)
STAGES = st.lists(st.tuples(st.sampled_from((8, 16, 2048)), KERNELS), min_size=1, max_size=4)


@st.composite
def designs(draw: st.DrawFn) -> Design:
    stages = draw(STAGES)
    architecture = Architecture(tuple(w for w, _ in stages), tuple(k for _, k in stages))
    return Design(architecture, draw(accelerators()), draw(st.sampled_from(devices())))


def test_text_and_id_are_literal() -> None:
    design = Design(
        Architecture((16, 32), ((3, 5), (3,))), Accelerator(8, 8, 1, 16, 32), "ecp5-85f"
    )
    assert str(design) == TEXT
    assert Design.parse(TEXT) == design
    # Ids are written in files that people keep, so they may never change.
    assert design.id == "d2c32477d"


@given(designs())
def test_texts_round_trip(design: Design) -> None:
    assert Design.parse(str(design)) == design


@given(st.lists(designs(), max_size=5))
def test_different_designs_have_different_texts_and_ids(rows: list[Design]) -> None:
    different = len(set(rows))
    assert len({str(row) for row in rows}) == different
    assert len({row.id for row in rows}) == different


@given(st.text() | st.text("wkxf@-0123456789", max_size=40))
def test_any_text_is_a_design_or_bad_input(text: str) -> None:
    try:
        design = Design.parse(text)
    except InputError:
        return
    assert str(design) == text


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_any_slip_of_the_pen_is_a_design_or_bad_input(place: int, character: str) -> None:
    text = TEXT[:place] + character + TEXT[place + 1 :]
    try:
        design = Design.parse(text)
    except InputError:
        return
    assert str(design) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "design is '', but must be an id of the study's front or look like w16k35"),
        ("d1234567", "design is 'd1234567'"),
        (f"{TEXT}@x", "design is "),
        ("w16@8x8x1w16f32@ecp5-85f", "architecture is 'w16'"),
        ("w16k3@8x8w16f32@ecp5-85f", "accelerator is '8x8w16f32'"),
        ("w16k3@8x8x1w16f32@", "device of the design is ''"),
        ("w16k3@8x8x1w16f32@ecp5/85f", "device of the design is 'ecp5/85f'"),
    ],
)
def test_bad_texts_are_explained(text: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^{says}"):
        Design.parse(text)
