"""The command line: one thin verb a step, the same steps as the notebooks.

All verbs but `cost`, `implement` and `fit --table` work on the study folder given by --study, which
is `study` unless CODESIGN_STUDY says otherwise. Bad input ends with one sentence and status 1.
"""

import io
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from . import __version__, accelerator, datasets, explore, rounds, space, verbs
from .errors import InputError, Stopped, choice, integer
from .files import alone
from .implement import implement
from .network_cost import cost
from .options import (
    HERE,
    ClosedOption,
    DesignsArgument,
    DeviceOption,
    DownloadOption,
    EnginesOption,
    FolderOption,
    JsonOption,
    SeedOption,
    StepsOption,
    StudyOption,
    WeightsOption,
    mistyped,
)  # fmt: skip
from .propose import propose, record
from .quantities import QUANTITIES
from .rounds import MOST
from .study import PRESETS, SETTINGS, Study, create, open_study
from .threads import ranks

app = typer.Typer(
    name="codesign",
    help="Design a convolutional network and its FPGA accelerator together. Start with `codesign "
    "run --preset quick`, or look at a study that is there: `codesign page --study FOLDER`.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SpaceOption = Annotated[str, typer.Option("--space", help="Preset, or path of a TOML file.")]
DatasetOption = Annotated[str | None, typer.Option(help="If not the space's own; or images:PATH.")]
PresetOption = Annotated[str, typer.Option(help="quick, standard or full.")]
ArchitecturesOption = Annotated[int, typer.Option(help="Subnets whose accuracy to measure.")]
SizeOption = Annotated[int, typer.Option(help="Designs of each device to measure.")]
DesignArgument = Annotated[str, typer.Argument(help="Id that explore printed, or text form.")]


@app.command()
def train(
    study: StudyOption = HERE,
    space_name: SpaceOption = "digits",
    dataset: DatasetOption = None,
    preset: PresetOption = "quick",
    seed: SeedOption = 0,
    device: DeviceOption = None,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
) -> None:
    """Phase 1: start a study and train its supernet. Killed, it goes on where it stopped."""
    from . import specialise as own
    from . import train as phase

    choice("--preset", preset, PRESETS)
    integer("--seed", seed, 0, 2**31 - 1)
    chosen = space.load_space(space_name)
    devices = [accelerator.load_device(name) for name in device or accelerator.devices()]
    name = dataset or chosen.dataset
    if name == "images" and data_folder is not None:
        name, data_folder = f"images:{data_folder}", None
    if name.startswith("images:") and name != "images:":  # later verbs may run elsewhere
        name = f"images:{Path(name[7:]).expanduser().resolve()}"
    data = datasets.load(name, folder=data_folder, download=download, shape=chosen.input)
    phase.check_data(chosen, data)  # before a study is there that holds what does not fit
    sizes = [len(part) for part in (data.train, data.validation, data.test)]
    print(
        "{:,} images to train on, {:,} to validate, {:,} to test;".format(*sizes),
        f"{len(data.classes)} classes; a validation image is {100 / sizes[1]:.2g} points.",
    )
    made = create(study, chosen, name, preset, seed, devices)
    first = ranks()[0] == 0
    with alone(study / SETTINGS) if first else nullcontext():
        supernet = phase.train(chosen, data, preset, seed, made.supernet_path)
    if first:
        own.kept_answers(study, supernet, data)
        print(f"Supernet of {chosen.size:,} architectures in {made.supernet_path}.")
        print("Measured accuracy in % on validation images, with the supernet's weights:")
        for label, value in phase.summary(supernet, data).items():
            print(f"  {label:<24}{value:6.2f}")


@app.command()
def profile(
    study: StudyOption = HERE,
    architectures: ArchitecturesOption = 100,
    designs: SizeOption = 100,
    engines: EnginesOption = 4,
    closed_form: ClosedOption = False,
    weights: WeightsOption = None,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
) -> None:
    """Phase 2: measure designs. Killed, it goes on where it stopped; what is stored is not
    measured again."""
    verbs.profile(
        open_study(study),
        integer("--architectures", architectures, 10, MOST),
        integer("--designs", designs, 10, MOST),
        integer("--engines", engines, 1, MOST),
        closed_form,
        data_folder,
        download,
        weights,
    )


@app.command()
def fit(
    study: StudyOption = HERE,
    own: Annotated[Path | None, typer.Option("--table", help="A CSV file of your own.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    prior: Annotated[str | None, typer.Option(help="Column with an estimate of it.")] = None,
    features: Annotated[
        str | None, typer.Option(help="A,B,..., as in a CSV file; all others if none.")
    ] = None,
    train_rows: Annotated[int | None, typer.Option("--train", help="Rows to train on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of what is drawn; 0 if none.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV file for the rows that lack the target, predicted.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Phase 2: fit the Gaussian processes, and print how good they are beside plain models.

    With --table, those are of a table of your own: of its column --target, predicted from the
    others. Rows not trained on are tested on; without --train, it is cross-validated. Rows whose
    target is empty are predicted, with 90 % intervals, into --out.
    """
    from . import fits, fitting

    options = {"--target": target, "--prior": prior, "--features": features, "--train": train_rows,
               "--seed": seed, "--out": out}  # fmt: skip
    if own is None:
        fitting.without_table(options)
        opened = open_study(study)
        with alone(opened.root / SETTINGS):
            predictors, table = fits.judged(opened)
            try:
                fits.save(opened, predictors, table)
            finally:  # it is worth reading where it cannot be stored
                print(verbs.records(table) if as_json else verbs.fit_text(opened, table))
    else:
        fitting.show(own, target, prior, features, train_rows, seed or 0, as_json, out)


app.command("explore")(verbs.explore_command)


@app.command()
def verify(
    designs: DesignsArgument,
    study: StudyOption = HERE,
    closed_form: ClosedOption = False,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure designs, and print predicted beside measured. Place and route may take minutes."""
    opened = open_study(study)
    chosen = [opened.find(text) for text in designs]
    table = verbs.verify(opened, chosen, closed_form, data_folder, download)
    print(verbs.records(table) if as_json else verbs.verify_text(opened, table))


@app.command()
def specialise(
    design: Annotated[str, typer.Argument(help="Id, text form, or an architecture alone.")],
    study: StudyOption = HERE,
    steps: StepsOption = None,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
) -> None:
    """Fine-tune one subnet for a tenth of a training, and print its accuracy before and after."""
    from . import export

    opened = open_study(study)
    chosen, data = verbs.network_of(opened, design), _data(opened, data_folder, download)
    for name, value in export.specialised(opened, chosen, data, steps)[1].items():
        print(f"{name:<40}{value:6.2f} % measured")
    print(f"On {len(data.validation):,} validation images; only `codesign export` looks at others.")


def _data(study: Study, folder: Path | None, download: bool) -> datasets.Dataset:
    shape = study.space.input
    return datasets.load(study.dataset, folder=folder, download=download, shape=shape)


@app.command("export")
def export_command(
    design: DesignArgument,
    study: StudyOption = HERE,
    out: Annotated[Path | None, typer.Option(help="Folder; exports/ID if not given.")] = None,
    steps: StepsOption = None,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
) -> None:
    """Write a design to a folder: weights, ONNX, layers, and a report with pictures."""
    from . import export

    opened = open_study(study)
    chosen, data = opened.find(design), _data(opened, data_folder, download)
    folder = export.export(opened, chosen, data, out or Path("exports") / chosen.id, steps)
    written = [name for name in export.FILES if (folder / name).exists()]
    print(f"Wrote {folder}: {', '.join(written)}.")


@app.command()
def run(
    preset: PresetOption = "quick",
    space_name: SpaceOption = "digits",
    study: StudyOption = HERE,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    architectures: ArchitecturesOption = 100,
    designs: SizeOption = 100,
    engines: EnginesOption = 2,
    closed_form: ClosedOption = False,
    weights: WeightsOption = None,
    seed: SeedOption = 0,
    data_folder: FolderOption = None,
    download: DownloadOption = False,
) -> None:
    """All phases, from nothing to a verified and exported design."""
    print(f"1/5 train, study in {study}")
    train(study, space_name, dataset, preset, seed, device, data_folder, download)
    print("2/5 profile")
    profile(study, architectures, designs, engines, closed_form, weights, data_folder, download)
    print("3/5 fit")
    fit(study)
    print("4/5 explore")
    verbs.explore_command(study, sample=True, seed=seed)
    front = open_study(study).front()
    best = str(front["id"].iloc[explore.knee(front[[*QUANTITIES]])])
    print(f"5/5 verify and export the knee, {best}")
    known = verbs.is_routed(open_study(study), best)
    verify([best], study, closed_form or not known, data_folder, download)
    if not (known or closed_form):
        print(verbs.why_modelled(open_study(study), best))
    export_command(best, study, data_folder=data_folder, download=download)
    print(f"Chosen design: {open_study(study).find(best)}")
    print(f"See it on the page: {open_study(study).command('page')}")


@app.command("page")
def page_command(
    study: StudyOption = HERE,
    port: Annotated[int | None, typer.Option(help="A free one near 8866 if not given.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Serve the page for this study on this machine."""
    integer("--port", 8866 if port is None else port, 1, 65535)
    print("Starting the page, some seconds.", file=sys.stderr)
    from .page import serve

    raise typer.Exit(serve(study, port, browser))


app.command()(propose)
app.command()(record)
app.command()(rounds.improve)
app.command()(cost)
app.command()(implement)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"codesign {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> NoReturn:
    """Run the command line; turn what a person can mend into one sentence."""
    status, sentence = 0, ""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that its encoding lacks is a "?"
        sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to clean up, as on Ctrl-C
    try:
        status = int(app(prog_name="codesign", standalone_mode=False) or 0)
        sys.stdout.flush()
    except InputError as error:
        status, sentence = 1, str(error)
    except Stopped as error:
        status, sentence = 130, str(error)
    except typer.TyperException as error:  # an unknown option, a text where a number belongs
        status, sentence = 2, f"{mistyped(error)}; see `codesign --help`."
    except BrokenPipeError:  # as in `codesign explore | head`: who reads has enough
        status = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status, sentence = 1, f"{where}{error.strerror or error}."
    if status == 130 and not sentence:  # Ctrl-C
        sentence = "stopped; the same command goes on from what is stored."
    if sentence:
        print("codesign:", *sentence.split(), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # what cannot be written is dropped, lest the interpreter complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


if __name__ == "__main__":
    main()
