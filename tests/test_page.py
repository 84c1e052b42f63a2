"""The page's server starts or says why not, serves this machine alone, and ends without a word."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from served import served

from codesign_kernel import page
from codesign_kernel.errors import InputError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study."""
    return tiny.study(tmp_path_factory, tmp_path_factory.mktemp("page") / "study").root


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind((page.HOST, 0))
        other.listen()
        yield other.getsockname()[1]


def status(address: str) -> int:
    """The HTTP status that an address answers with."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_folder_without_a_study_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "codesign_kernel.cli", "page", "--study", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stdout == ""
    assert str(tmp_path) in result.stderr
    starting, *sentence = result.stderr.splitlines()
    assert starting == "Starting the page, some seconds."
    tiny.assert_one_sentence(" ".join(sentence))


@pytest.mark.parametrize("name", ["designs.safetensors", "fit.json"])
def test_a_study_that_is_not_whole_is_refused_before_the_server_starts(
    study: Path, tmp_path: Path, name: str
) -> None:
    for path in study.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match=re.escape(name)):
        page.serve(tmp_path, None, False)
    (tmp_path / name).write_text("damaged")
    with pytest.raises(InputError, match=re.escape(name)):
        page.serve(tmp_path, None, False)


def test_damaged_measurements_are_told_before_the_server_starts(
    study: Path, tmp_path: Path
) -> None:
    for path in study.iterdir():
        if path.name != "measurements.sqlite":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "measurements.sqlite").write_text("damaged")
    with pytest.raises(InputError, match=r"measurements\.sqlite cannot be read: "):
        page.serve(tmp_path, None, False)


def test_a_port_that_is_taken_is_refused(study: Path, taken: int) -> None:
    with pytest.raises(InputError, match=f"--port is {taken}"):
        page.serve(study, taken, False)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(study: Path, port: int) -> None:
    with pytest.raises(InputError, match="from 1 to 65535"):
        page.serve(study, port, False)


def test_without_a_port_the_next_free_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(page, "PORT", taken)
    assert taken < page.free_port(None) < taken + 100


def test_without_the_notebook_the_sentence_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, study: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "NOTEBOOK", tmp_path / "dashboard.ipynb")
    with pytest.raises(InputError, match="clone of the repository"):
        page.serve(study, None, False)


def test_the_server_listens_here_alone_and_ends_without_a_word(study: Path, tmp_path: Path) -> None:
    with served(study, tmp_path) as running:
        module = next((tmp_path / "cache" / "codesign").glob("picture-*.js"))
        assert status(f"{running.address}voila/static/{module.name}") == 200
        port = int(running.address.rsplit(":", 1)[1].strip("/"))
        with socket.socket() as other:  # fails if the server listens on all addresses
            other.bind(("127.0.0.2", port))
    assert running.process.returncode == 0
    assert running.said == "Starting the page, some seconds.\n"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, study: Path) -> Iterator[Callable[[], page.Server]]:
    """What makes the page's server; what that changes of this process is undone."""
    monkeypatch.setattr("os.environ", dict(os.environ))
    before = signal.getsignal(signal.SIGTERM)
    yield lambda: page.make_server(study, 0)
    signal.signal(signal.SIGTERM, before)


def test_kernels_whose_browser_vanished_are_ended(
    made: Callable[[], page.Server], tmp_path: Path
) -> None:
    server = made()
    server.connection_dir = str(tmp_path)
    kernels = server.init_settings()["kernel_manager"]
    assert kernels.cull_idle_timeout == page.CULL_SECONDS > 0
    assert 0 < kernels.cull_interval <= page.CULL_SECONDS
    assert not kernels.cull_connected  # a lecturer may talk for longer than that


def test_no_configuration_of_jupyter_opens_the_page_to_others(
    made: Callable[[], page.Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    voila = {"ip": "0.0.0.0", "open_browser": False}
    (tmp_path / "voila.json").write_text(json.dumps({"Voila": voila}))
    kernel = {"KernelManager": {"transport": "tcp", "ip": "0.0.0.0"}}
    (tmp_path / "jupyter_config.json").write_text(json.dumps(kernel))
    server = made()
    assert server.ip == page.HOST
    assert server.open_browser  # which is what says the address
    assert server.config.KernelManager == {"transport": "ipc"}


def test_sockets_are_where_their_path_is_short_enough(
    made: Callable[[], page.Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (long := tmp_path / (60 * "x")).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert made().connection_dir_root == "/tmp"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"TMPDIR is .*up to 37 bytes"):
        made()
