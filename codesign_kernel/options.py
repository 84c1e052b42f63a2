"""Options that verbs of the command line share, and what is checked of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .constraints import Constraints
from .errors import Stopped, integer, shown
from .study import STUDY, Study, open_study


def _folder(text: str | Path) -> Path:
    """Return the path of a folder; an empty one, as of a variable that is unset, is none."""
    if not str(text).strip():
        raise typer.BadParameter("it is empty, but must be a folder")
    return Path(text)


StudyOption = Annotated[
    Path,
    typer.Option(
        "--study", "-s", envvar=STUDY, help="The study's folder.", parser=_folder, metavar="<path>"
    ),
]
HERE = Path("study")
FolderOption = Annotated[
    Path | None, typer.Option("--data-folder", help="Where the data set's files are.")
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch the data set if it is not on this machine.")
]
DeviceOption = Annotated[
    list[str] | None, typer.Option(help="Name, or path of a TOML file; all shipped ones if none.")
]
EnginesOption = Annotated[
    int, typer.Option(help="Engines of each ECP5 to simulate; each takes half a minute once.")
]
ClosedOption = Annotated[
    bool, typer.Option("--closed-form", help="Model every device: nothing is simulated or routed.")
]
DesignsArgument = Annotated[
    list[str], typer.Argument(help="Ids that explore printed, or text forms.", metavar="DESIGN...")
]
SeedOption = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="Whose accuracy: specialised, each network fine-tuned as it is exported; or supernet, "
        "with shared weights, in a tenth of the time. As the study's others, or else specialised."
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        help="Steps of fine-tuning, each of half the preset's batch: as in `profile` if not given, "
        "a seventh of the preset's. As many as those bring more, in half the time of training "
        "alone; stopped, it goes on from where it was."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print for programs.")]
# Of a search: where, within what, and how long.
DevicesOption = Annotated[list[str] | None, typer.Option(help="All of the study's if none.")]
LatencyOption = Annotated[float | None, typer.Option(help="ms of one image.")]
PowerOption = Annotated[float | None, typer.Option(help="W, mean while computing.")]
AccuracyOption = Annotated[float | None, typer.Option(help="% on validation images.")]
EnergyOption = Annotated[float | None, typer.Option(help="mJ of one image.")]
DspOption = Annotated[float | None, typer.Option(help="DSP blocks.")]
BramOption = Annotated[float | None, typer.Option(help="Block RAMs.")]
ConfidenceOption = Annotated[
    float, typer.Option(help="Probability with which each of these is to hold.")
]
GenerationsOption = Annotated[int, typer.Option(help="Of 1000 designs each; up to 1000.")]


@contextmanager
def begun_anew() -> Iterator[None]:
    """Say, if it is stopped, that what runs inside begins anew: nothing of it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command searches anew.") from None


Limit = float | None
Bounds = tuple[Limit, Limit, Limit, Limit, Limit, Limit]  # in the order of `Constraints`


def searched(
    root: Path, device: Sequence[str] | None, bounds: Bounds, confidence: float,
    generations: int, seed: int,
) -> tuple[Study, list[str], Constraints]:  # fmt: skip
    """Open the study of a search, check where, within what and how long it is to be, and return the
    study, its devices and the constraints. Raises InputError."""
    study, asked = open_study(root), Constraints(*bounds, confidence)
    names = list(dict.fromkeys(device or study.devices))
    for name in names:
        study.device(name)
    integer("--generations", generations, 1, 1_000)
    integer("--seed", seed, 0, 2**31 - 1)
    return study, names, asked


def mistyped(error: typer.TyperException) -> str:
    """Say what is wrong with the words of a command, and name the value where it is a number."""
    option, cause = getattr(error, "param", None), error.__context__
    details = cause.errors() if hasattr(cause, "errors") else []  # type: ignore[union-attr]
    if option is not None and details:
        kind = "a whole number" if details[0]["type"].startswith("int") else "a number"
        return f"{option.opts[0]} is {shown(details[0]['input'])}, but must be {kind}"
    return error.format_message().rstrip(".")
