"""Hypothesis strategies that several test modules share."""

from typing import Any

from hypothesis import strategies as st

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.space import SearchSpace, space_of

# Whatever a TOML or JSON file can hold in a field.
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-8, 64)
    | st.sampled_from([10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=20)
    | st.datetimes()
    | st.dates()
    | st.times(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)


def some(values: tuple[int, ...], most: int) -> st.SearchStrategy[list[int]]:
    """One to `most` different values in rising order."""
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True).map(sorted)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of at most 6,241 architectures, widths rising or falling from stage to stage."""
    stages = []
    for _ in range(draw(st.integers(1, 2))):
        stages.append(
            {
                "widths": draw(some((8, 16, 24, 40), 2)),
                "depths": draw(some((1, 2, 3), 2)),
                "kernels": draw(some((1, 3, 5, 7), 3).filter(lambda kernels: kernels != [1])),
                "stride": draw(st.sampled_from((1, 2))),
            }
        )
    stem = {
        "width": draw(st.sampled_from((8, 16, 32))),
        "kernel": draw(st.sampled_from((1, 3, 5, 7))),
        "stride": draw(st.sampled_from((1, 2))),
    }
    sides = [draw(st.integers(1, 13)), draw(st.integers(1, 13)), draw(st.integers(1, 4))]
    return space_of(
        {
            "name": "small",
            "dataset": "digits",
            "input": sides,
            "classes": draw(st.integers(2, 12)),
            "stem": stem,
            "stages": stages,
        }
    )


def accelerators() -> st.SearchStrategy[Accelerator]:
    """Accelerators of any shape, many of them with lanes that no width fills."""
    lanes = st.integers(1, 40) | st.sampled_from((1, 2, 4, 8, 16, 32, 64))
    buffers = st.sampled_from((1, 2, 3, 4, 8, 16, 64, 1024))
    return st.builds(Accelerator, lanes, lanes, st.integers(1, 8), buffers, buffers)
