"""The repository holds together: versions, dependencies, floors, notebooks, data, what it names."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import codesign_kernel

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"pytorch": "torch"}  # conda's name -> pip's


def tracked() -> list[Path]:
    """Return the files that git tracks; without git, all but those in folders with a dot."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0 and listing.stdout:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        visible = [path for path in ROOT.iterdir() if not path.name.startswith(".")]
        paths = [path for top in visible for path in [top, *top.rglob("*")]]
    return sorted(path for path in paths if path.is_file() and path.suffix != ".pyc")


def ranges(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Return name -> range of requirements as pip or conda writes them."""
    parsed = [Requirement(text) for text in requirements]
    return {CONDA_NAMES.get(each.name, each.name): each.specifier for each in parsed}


def test_version_is_that_of_the_newest_changelog_entry() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "codesign_kernel/__init__.py"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", changelog, re.MULTILINE)
    assert newest is not None
    assert re.findall(r"\d+\.\d+\.\d+", newest[1]) == [codesign_kernel.__version__]


def test_what_is_to_be_cited_is_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PYPROJECT["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert cited["version"] == codesign_kernel.__version__
    assert cited["license"] == project["license"]
    assert cited["authors"] == project["authors"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"version = {{{codesign_kernel.__version__}}}" in readme
    (paper,) = cited["references"]
    names = [f"{each['family-names']}, {each['given-names']}" for each in paper["authors"]]
    assert f"author = {{{' and '.join(names)}}}" in readme


def test_environment_yml_has_the_dependencies_of_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    *conda, section = environment["dependencies"]
    *pip, itself = section["pip"]
    assert itself == "--editable ."
    found = ranges(conda) | ranges(pip)
    assert found.pop("python") == SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert found.pop("pip") == SpecifierSet()
    project = PYPROJECT["project"]
    assert found == ranges(project["dependencies"] + project["optional-dependencies"]["test"])


def test_every_dependency_has_both_bounds() -> None:
    project = PYPROJECT["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    for name, bounds in ranges(requirements).items():
        operators = {bound.operator for bound in bounds}
        assert operators in ({">=", "<"}, {">=", "<="}), f"{name}{bounds}"


def test_every_import_is_declared() -> None:
    owners = packages_distributions()
    declared = {canonicalize_name(name) for name in ranges(PYPROJECT["project"]["dependencies"])}
    for path in sorted((ROOT / "codesign_kernel").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
                found = {canonicalize_name(owner) for owner in owners.get(name, [])}
                assert found & declared, f"{path.name} imports {name}, which is no dependency"


def test_imports_keep_to_the_floors(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("module", ["dashboard", "charts", "explore", "study", "measure", "cli"])
def test_module_starts_without_torch(module: str) -> None:
    code = f"import sys, codesign_kernel.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_modules_are_short() -> None:
    modules = sorted((ROOT / "codesign_kernel").rglob("*.py"))
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert lines
    assert {name: count for name, count in lines.items() if count > 330} == {}


def test_contributing_has_every_module_on_a_floor() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| floor |") : text.index("Only `supernet`")]
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    modules = {path.stem for path in (ROOT / "codesign_kernel").glob("[!_]*.py")}
    assert named == modules
    torch = re.findall(r"`([a-z]+)`", re.search(r"Only (.*) import torch\.", text)[1])  # type: ignore[index]
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    allowed = next(c["allowed_importers"] for c in contracts if "allowed_importers" in c)
    assert sorted(torch) == sorted(name.removeprefix("codesign_kernel.") for name in allowed)


def test_notebooks_are_committed_without_outputs() -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for notebook in notebooks:
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                assert (cell["outputs"], cell["execution_count"]) == ([], None), notebook.name


def test_all_that_is_in_data_is_described() -> None:
    data = ROOT / "data"
    about = (data / "README.md").read_text(encoding="utf-8")
    files = [path for path in tracked() if data in path.parents and path.name != "README.md"]
    assert files
    for path in files:  # a file of an engine is told by its kind
        name = re.sub(r"^\d+x\d+x\d+w\d+f\d+\.", "ENGINE.", path.name)
        assert f"`{name}`" in about, path
        assert path.parent == data or f"## {path.parent.relative_to(data).as_posix()}" in about


def test_no_file_names_a_package_host_or_a_home() -> None:
    # These are written so that this file does not match itself.
    host = r"\b(pypi|pythonhosted|debian|npmjs|anaconda)\.(org|com|net)\b|\bdownload\.pytorch\b"
    home = r"(?<![\w.])/(home|root|Users)/[\w.-]+"
    found = {}
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if match := re.search(f"{host}|{home}", text):
            found[path.relative_to(ROOT).as_posix()] = match[0]
    assert found == {}


def test_command_prints_its_help() -> None:
    command = Path(sysconfig.get_path("scripts")) / "codesign"
    result = subprocess.run([command, "--help"], capture_output=True, text=True, cwd=os.sep)
    assert result.returncode == 0, result.stderr
    assert "Usage: codesign" in result.stdout


@pytest.mark.fashion
def test_the_lines_of_python_in_the_readme_run(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"  ```python\n(.*?)  ```\n", text, re.DOTALL)
    shutil.copytree(ROOT / "data" / "studies" / "fashion", tmp_path / "fashion")
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accuracy .* measured +(True|False)\n", done.stdout)
    latency = re.search(r"latency_ms +([\d.]+ +[\d.]+ +[\d.]+ +[\d.]+) +modelled", done.stdout)
    assert latency is not None
    _, low, high, value = map(float, latency[1].split())
    assert low < value < high  # or else a reader takes one of them for wrong
    assert "</html>" in (tmp_path / "front.html").read_text(encoding="utf-8")
