"""Serve the page: Voilà on this machine's loopback address, with all that it loads on this machine.

Each visitor has a kernel of their own, which ends when they leave; one whose browser vanished is
ended when it has been idle for CULL_SECONDS.
"""

import errno
import logging
import os
import socket
import tempfile
import webbrowser
from pathlib import Path

from .widgets import MODULE, bundle  # before Voilà: spares it a second, see charts.py

# isort: split
from traitlets.config import Config
from voila.app import Voila  # type: ignore[import-untyped]
from voila.shutdown_kernel_handler import (  # type: ignore[import-untyped]
    VoilaShutdownKernelHandler,
)

from .errors import InputError
from .study import STUDY, open_study

HOST = "127.0.0.1"
PORT = 8866
NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "dashboard.ipynb"
CULL_SECONDS = 300
RETRIES = 50  # ports, where thirty people start their pages at once
LONGEST = 103 - len(f"/voila_{8 * '_'}/kernel-{36 * '_'}-ipc-10")  # a socket's path on macOS
EXTENSIONS = [  # of JupyterLab's, those that show widgets; no other is sent to the browser
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
    "anywidget",
]


def serve(study: Path, port: int | None = None, open_browser: bool = True) -> int:
    """Serve the page of a study until Ctrl-C; return the exit status, 0.

    Without `port` it is 8866 or the next one that is free. Raises InputError, before the server
    starts, if the study cannot be read, the port is taken or the notebook is not there.
    """
    opened = open_study(study)
    opened.designs()
    opened.fit_report()
    opened.store.found()
    if not NOTEBOOK.is_file():
        raise InputError(
            f"{NOTEBOOK} does not exist: the page is served from a clone of the repository, "
            "installed with `pip install --editable .`."
        )
    server = make_server(study, free_port(port), RETRIES if port is None else 0)
    server.show = open_browser
    server.start()
    return 0


def make_server(study: Path, port: int, retries: int = 0) -> "Server":
    """Return the server, ready to start, and set the environment that its kernels inherit. If the
    port is taken by then, it tries so many others."""
    module = bundle()
    os.environ[STUDY] = str(study.resolve())
    os.environ["CODESIGN_EXPORTS"] = str(Path("exports").resolve())
    os.environ[MODULE] = module.name
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # thirty kernels of a few threads each are many
    config = Config()
    config.Voila.update(
        ip=HOST, port=port, port_retries=retries, log_level="ERROR", notebook_path=str(NOTEBOOK)
    )
    config.VoilaConfiguration.update(show_tracebacks=False, extension_allowlist=EXTENSIONS)
    config.MappingKernelManager.update(
        cull_idle_timeout=CULL_SECONDS, cull_interval=CULL_SECONDS // 5, cull_connected=False
    )
    if os.name == "posix":  # no other user of the machine can listen, as they could on a port
        config.KernelManager.transport = "ipc"
        config.Voila.connection_dir_root = short_folder()
    logging.getLogger("tornado").setLevel(logging.ERROR)
    server = Server(config=config)
    server.initialize([])
    server.template_paths.insert(0, str(Path(__file__).parent / "web"))
    server.static_paths.append(str(module.parent))
    return server


class Leave(VoilaShutdownKernelHandler):  # type: ignore[misc]
    """Ends the kernel of a page that is left. The page's last message carries no token against
    forged requests, and Voilà refuses it; but no other site knows a kernel's id: it is random."""

    def check_xsrf_cookie(self) -> None:
        """Ask for no token."""


class Server(Voila):  # type: ignore[misc]
    """Voilà that says where the page is once it listens, and opens a browser if `show` is set."""

    show = False

    def load_config_file(self, *_: object, **__: object) -> None:
        """Read none: one of the user's Jupyter could open the page, or its kernels, to others."""

    def init_handlers(self) -> list[tuple[object, ...]]:
        """Return Voilà's handlers, with that of leaving the page replaced."""
        return [
            tuple(Leave if part is VoilaShutdownKernelHandler else part for part in each)
            for each in super().init_handlers()
        ]

    def launch_browser(self) -> None:
        """Say the address; called when the server listens."""
        print(f"The page is at http://{HOST}:{self.port}/ (Ctrl-C ends it).", flush=True)
        if self.show:
            webbrowser.open(f"http://{HOST}:{self.port}/")


def short_folder() -> str:
    """Return a folder for temporary files in which the sockets of kernels can be. Raises
    InputError."""
    for folder in (tempfile.gettempdir(), "/tmp"):  # what is made in it is its user's alone
        if len(os.fsencode(folder)) <= LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"TMPDIR is {tempfile.gettempdir()}, but must be a path of up to {LONGEST} bytes: the "
        "system bounds that of a socket, and /tmp cannot be written."
    )


def free_port(port: int | None) -> int:
    """Return `port` if it is free, or for None the first free one from PORT on; else InputError."""
    for number in [port] if port is not None else range(PORT, PORT + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, number))
                return number
            except OverflowError:
                raise InputError(f"--port is {port}, but must be from 1 to 65535.") from None
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
    if port is None:
        raise InputError(f"no port from {PORT} to {PORT + 99} is free; choose one with --port.")
    raise InputError(f"--port is {port}, but that port is taken or not allowed.")
