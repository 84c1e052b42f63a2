"""Each notebook runs from the top, alone and offline, and says whose and of what kind its figures
are; and the tools of codesign_kernel/notebook.py that they share."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import altair
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from codesign_kernel import charts, meters, notebook
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.constraints import Constraints
from codesign_kernel.dashboard import Dashboard
from codesign_kernel.errors import InputError
from codesign_kernel.explore import usable
from codesign_kernel.files import read_arrays, write_arrays
from codesign_kernel.space import Architecture
from codesign_kernel.study import STUDY
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.workload import totals

ROOT = Path(__file__).parent.parent
STUDIES = ROOT / "data" / "studies"
NAMES = ("01_train", "02_profile", "03_fit", "04_explore", "05_compare")

# Refuses every connection but to this machine, and notes the attempt: a refusal could be caught.
GUARD = """
import os, socket

def guarded(allowed):
    def call(self, address):
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost"):
            return allowed(self, address)
        with open(os.environ["ATTEMPTS"], "a") as stream:
            print(address, file=stream)
        raise OSError("this test is offline")
    return call

socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)

def looked_up(allowed):
    def call(host, *arguments, **options):
        if host in (None, "", "127.0.0.1", "::1", "localhost", socket.gethostname()):
            return allowed(host, *arguments, **options)
        with open(os.environ["ATTEMPTS"], "a") as stream:
            print(host, file=stream)
        raise OSError("this test is offline")
    return call

socket.getaddrinfo = looked_up(socket.getaddrinfo)
"""


@dataclass
class Run:
    """A notebook that has run: its outputs, and the folder it ran in."""

    content: nbformat.NotebookNode
    folder: Path

    def outputs(self) -> list[nbformat.NotebookNode]:
        cells = [cell for cell in self.content.cells if cell.cell_type == "code"]
        return [output for cell in cells for output in cell.outputs]

    def printed(self) -> str:
        streams = [output for output in self.outputs() if output.output_type == "stream"]
        return "".join(output.text for output in streams if output.name == "stdout")

    def figures(self) -> list[str]:
        """The words of each figure, a line each."""
        pictures = [output.get("data", {}).get("image/svg+xml") for output in self.outputs()]
        trees = [ElementTree.fromstring(picture) for picture in pictures if picture]
        return ["\n".join(e.text for e in tree.iter() if e.text) for tree in trees]


Runner = Callable[[nbformat.NotebookNode, Path], Run]


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def digests() -> dict[str, str]:
    """A fingerprint of each shipped file."""
    files = sorted(path for path in STUDIES.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def unset() -> Iterator[None]:
    """Notebooks keep to their own folder, whatever the variable says where the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(STUDY, raising=False)
        yield


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Run a notebook in a folder, in a kernel without a network."""
    guard = tmp_path_factory.mktemp("guard")
    (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")

    def run(content: nbformat.NotebookNode, folder: Path) -> Run:
        attempts = folder / "attempts"
        paths = [str(guard), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        nowhere = "http://127.0.0.1:9"  # for code that isn't Python and would ask a proxy
        client = NotebookClient(content, timeout=None, resources={"metadata": {"path": folder}})
        client.execute(
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "IPYTHONDIR": str(guard / "ipython"),
                "ATTEMPTS": str(attempts),
                "http_proxy": nowhere,
                "https_proxy": nowhere,
            }
        )
        assert not attempts.exists(), attempts.read_text(encoding="utf-8")
        return Run(content, folder)

    return run


@pytest.fixture(scope="module", params=NAMES)
def alone(
    request: pytest.FixtureRequest, offline: Runner, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Run each notebook in an empty folder, and hold that it leaves what is shipped as it was."""
    before = digests()
    run = offline(committed(request.param), tmp_path_factory.mktemp(request.param))
    assert digests() == before
    return run


def test_notebook_runs_alone_and_offline(alone: Run) -> None:
    kinds = {output.output_type for output in alone.outputs()}
    assert "error" not in kinds
    assert "Traceback" not in str(alone.content)
    own = {path.name for path in alone.folder.iterdir()}
    assert own <= {"my-study"}, "notebooks write into my-study alone"


def test_every_figure_says_whose_it_is_its_source_and_its_unit(alone: Run) -> None:
    figures = alone.figures()
    assert figures
    for words in figures:
        assert sum(sentence in words for sentence in notebook.WHOSE.values()) == 1, words
        assert re.search(r"measured|predicted|modelled|exact", words, re.IGNORECASE), words
        assert re.search(r"\((%|ms|W|millions|nats)\)|Cycles", words), words


def test_a_space_of_other_images_leaves_no_study(offline: Runner, tmp_path: Path) -> None:
    content = committed("01_train")
    content.cells = [content.cells[i] for i in (1, 3, 13)]
    content.cells[1].source = content.cells[1].source.replace('"digits"', '"fashion"')
    with pytest.raises(CellExecutionError, match="data set digits has images of \\(8, 8"):
        offline(content, tmp_path)
    assert not (tmp_path / "my-study" / "study.json").exists()


def test_profile_goes_on_with_the_study_that_train_made(offline: Runner, tmp_path: Path) -> None:
    offline(committed("01_train"), tmp_path)
    run = offline(committed("02_profile"), tmp_path)
    assert "This is your own study" in run.printed()
    assert re.findall(r"new rows: (\d+)", run.printed()) == [
        "10", "90", "300", "100", "0", "0", "0"
    ]  # fmt: skip
    again = offline(committed("02_profile"), tmp_path)
    assert re.findall(r"new rows: (\d+)", again.printed()) == ["0"] * 7
    stored = notebook.open_study(tmp_path / "my-study").store.rows()
    assert stored["source"].value_counts().to_dict() == {"modelled": 400, "measured": 400}


def test_explore_leaves_a_study_that_the_page_shows(offline: Runner, tmp_path: Path) -> None:
    kept = [file for files in notebook.FILES.values() for file in files]
    (tmp_path / "my-study").mkdir()
    for file in kept:
        shutil.copyfile(STUDIES / "digits" / file, tmp_path / "my-study" / file)
    run = offline(committed("04_explore"), tmp_path)
    assert "This is your own study" in run.printed()
    page, export = (re.search(f'codesign {verb} .*--study "(.*)"', run.printed())
                    for verb in ("page", "export"))  # fmt: skip
    assert page is not None
    assert export is not None
    assert Path(page[1]) == Path(export[1]) == tmp_path / "my-study"
    shown = Dashboard(notebook.open_study(Path(page[1])))
    assert list(shown.clouds) == ["ecp5-85f"]


def test_without_network_a_kernel_cannot_connect(offline: Runner, tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("import socket; socket.create_connection(('192.0.2.1', 80))")
    with pytest.raises(CellExecutionError, match="this test is offline"):
        offline(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert (tmp_path / "attempts").exists()


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_committed_clean(name: str) -> None:
    content = committed(name)
    nbformat.validate(content)
    assert (content.nbformat, content.nbformat_minor) == (4, 5)
    assert content.metadata.kernelspec.name == "python3"
    assert set(content.metadata) == {"kernelspec", "language_info"}
    ids = [cell.id for cell in content.cells]
    assert len(set(ids)) == len(ids)
    for cell in content.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_the_parts_of_a_lesson(name: str) -> None:
    content = committed(name)
    for part in ("**Goals.**", "**Prerequisites.**", "**Minutes.**"):
        assert part in content.cells[0].source
    last = content.cells[-1].source
    assert last.index("## Exercises") < last.index("## What you saw")
    # What an exercise asks to change is there to be changed.
    code = "\n".join(cell.source for cell in content.cells if cell.cell_type == "code")
    named = re.findall(r"(?:[Cc]hange|replace) `([^`]+)`", last)
    assert named
    assert [text for text in named if text not in code] == []


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study of one's own, complete; it is the working directory."""
    shutil.copytree(STUDIES / "digits", tmp_path / "my-study")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my-study"


@pytest.mark.parametrize("needs", list(notebook.FILES))
def test_study_is_yours_if_it_has_what_is_needed(
    own: Path, needs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study, whose = notebook.study(needs)
    assert (study.root, whose) == (Path("my-study"), "yours")
    assert capsys.readouterr().out == "This is your own study, my-study.\n"


@pytest.mark.parametrize(
    ("needs", "absent"),
    [
        ("supernet", "study.json"),
        ("supernet", "supernet.safetensors"),
        ("measurements", "measurements.sqlite"),
        ("predictors", "predictors.safetensors"),
    ],
)
def test_a_copy_of_the_shipped_study_stands_in(
    own: Path, needs: str, absent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / absent).unlink()
    study, whose = notebook.study(needs)
    assert whose == "shipped"
    assert str(own.name) in capsys.readouterr().out
    assert study.root not in (own, STUDIES / "digits")
    phases = list(notebook.FILES.values())[: list(notebook.FILES).index(needs) + 1]
    there = {path.name for path in study.root.iterdir()}
    assert there == {file for phase in phases for file in phase}


def test_an_unfinished_supernet_is_not_yours_yet(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, about = read_arrays(own / "supernet.safetensors")
    write_arrays(own / "supernet.safetensors", arrays, {**about, "step": 7})
    assert notebook.study("supernet")[1] == "shipped"
    assert "only to step 7 of" in capsys.readouterr().out


def test_a_copy_can_be_written_even_if_the_source_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in shutil.copytree(STUDIES, tmp_path / "data" / "studies").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    study, _ = notebook.study("measurements")
    assert study.root.parent != tmp_path / "data" / "studies"
    for path in study.root.iterdir():
        assert path.stat().st_mode & 0o200, path


def test_your_study_is_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert notebook.start() == Path("my-study")
    mine = tmp_path / "class" / "ann"
    monkeypatch.setenv(STUDY, str(mine))
    assert notebook.start() == mine
    assert (list(mine.iterdir()), capsys.readouterr().out) == ([], "")
    shutil.copytree(STUDIES / "digits", mine, dirs_exist_ok=True)
    assert notebook.study("predictors")[1] == "yours"
    assert capsys.readouterr().out == f"This is your own study, {mine}.\n"


@pytest.mark.parametrize("where", ["file", "shipped"])
def test_who_cannot_write_is_told_what_to_set(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    folder = {"file": tmp_path / "file" / "study", "shipped": STUDIES / "fashion"}[where]
    before = digests()
    monkeypatch.setenv(STUDY, str(folder))
    started = notebook.start()
    printed = capsys.readouterr().out
    assert f"{folder} " in printed
    assert ": set CODESIGN_STUDY to a folder of your own. Until then" in printed
    assert started.is_dir()
    assert folder not in (started, *started.parents)
    assert notebook.study("supernet")[1] == "shipped"
    assert digests() == before


def test_a_copy_goes_with_the_process(tmp_path: Path) -> None:
    code = "from codesign_kernel import notebook; print(notebook.study('supernet')[0].root)"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "stands in for my-study: 01_train has not made it yet" in done.stdout
    assert not Path(done.stdout.splitlines()[-1]).exists()


def test_unknown_needs_and_unknown_studies_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="needs is 'weights', but must be one of: supernet"):
        notebook.study("weights")
    with pytest.raises(InputError, match="nothing"):
        notebook.shipped("nothing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "__file__", str(tmp_path / "elsewhere" / "notebook.py"))
    with pytest.raises(InputError, match="data/studies was not found"):
        notebook.data()


def test_data_is_found_from_any_folder_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (ROOT, ROOT / "notebooks"):
        monkeypatch.chdir(folder)
        assert notebook.data() == ROOT / "data"


def test_macs_are_those_of_the_workload() -> None:
    space = notebook.shipped("digits").space
    genomes = space.sample(20, np.random.default_rng(3))
    found = notebook.macs(space, [str(space.decode(genome)) for genome in genomes])
    assert found.tolist() == totals(space, genomes)[0].tolist()
    assert notebook.macs(space, ["w16k3-w32k3"]).tolist() == [152_384]  # by hand, in 01_train


def test_every_pair_is_predicted_in_order() -> None:
    study = notebook.shipped("digits")
    predictors, device = study.predictors(), study.device("ecp5-25f")
    genomes = study.space.sample(3, np.random.default_rng(4))
    accelerators = usable(device, Constraints())[:2]
    found = notebook.every_pair(predictors, genomes, accelerators, device.name)
    pairs = [(genome, engine) for genome in genomes for engine in accelerators]
    for row, (genome, engine) in zip(found, pairs, strict=True):
        one = predictors.means(genome[None], Accelerators.of([engine]), device.name)[0]
        assert row == pytest.approx(one * [-1, 1, 1], rel=1e-6)


def test_accuracies_are_measured_once_and_in_order(own: Path) -> None:
    study, _ = notebook.study("measurements")
    meter = meters.Accuracy(study)
    genomes = study.space.sample(3, np.random.default_rng(5))[[2, 0, 1]]
    found = notebook.accuracies(study, meter, genomes)
    again = [meter.measure((str(study.space.decode(g)), "", ""))["accuracy"] for g in genomes]
    assert found.tolist() == again
    rows = len(study.store.rows())
    assert notebook.accuracies(study, meter, genomes).tolist() == again
    assert len(study.store.rows()) == rows


def test_show_adds_whose_results_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(notebook, "display", lambda data, raw: shown.append(data))
    chart = charts.sizes(pd.Series([1e5, 2e5, 4e5]))
    before = chart.to_dict()
    notebook.show(chart, "shipped", "Three of them.")
    assert chart.to_dict() == before
    words = [e.text for e in ElementTree.fromstring(shown[0]["image/svg+xml"]).iter() if e.text]
    for line in ("Sizes of the architectures", "Three of them.", notebook.WHOSE["shipped"]):
        assert line in words
        assert line in shown[0]["text/plain"]
    with pytest.raises(InputError, match="whose is 'mine', but must be one of: yours, shipped"):
        notebook.show(chart, "mine")


def test_text_has_room_for_a_wider_font(monkeypatch: pytest.MonkeyPatch) -> None:
    used = pd.DataFrame({"resource": ["block RAMs"], "used": [66], "budget": [208]})

    def drawn() -> tuple[float, list[str]]:
        svg = charts.to_svg(charts.resources(used))
        left = re.search(r"translate\(([\d.]+),", svg)
        assert left is not None
        return float(left[1]), re.findall(r'font-size="([\d.]+)px"', svg)

    room, sizes = drawn()
    monkeypatch.setattr(charts, "ROOM", 1.0)
    tight, plain = drawn()
    assert sizes == plain
    assert {"11", "14"} <= set(sizes)
    assert room > 1.15 * tight


def test_band_counts_the_held_out_that_are_inside() -> None:
    rng = np.random.default_rng(6)
    table = pd.DataFrame({"macs": 2.0 ** np.linspace(16, 21, 60)})
    table["accuracy"] = 80 + 2 * np.log2(table["macs"]) / 10 + rng.normal(0, 0.5, 60)
    fitted = np.arange(60) % 2 == 0
    size = np.log2(table[["macs"]].to_numpy())
    model = Surrogate().fit(size[fitted], table["accuracy"][fitted])
    chart = notebook.band(model, table, fitted)
    low, high = model.interval(size[~fitted])
    held = table["accuracy"][~fitted].to_numpy()
    inside = sum(a <= value <= b for a, value, b in zip(low, held, high, strict=True))
    assert f"{inside} of the 30 held out are inside." in chart.title.subtitle
    assert isinstance(chart, altair.LayerChart)
    assert "<svg" in charts.to_svg(chart)


def test_notebook_tools_start_without_torch() -> None:
    code = "import sys, codesign_kernel.notebook; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_architectures_in_the_lessons_are_of_their_spaces() -> None:
    spaces = {name: notebook.shipped(name).space for name in ("digits", "fashion")}
    for name in NAMES:
        code = "\n".join(c.source for c in committed(name).cells if c.cell_type == "code")
        for text in re.findall(r"\bw\d+k\d+(?:-w\d+k\d+)+", code):
            architecture = Architecture.parse(text)
            space = spaces["digits" if len(architecture.widths) == 2 else "fashion"]
            assert space.decode(space.encode(architecture)) == architecture
