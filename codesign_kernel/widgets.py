"""The page's own widgets: a picture that redraws live, a bound with its slider, a text read out.

Vega, which draws the pictures, comes out of vl-convert-python once, as one JavaScript module that
is kept in the user's cache. Nothing is loaded from another host.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from .charts import alt
from .errors import InputError
from .files import cache_folder, write_text

MODULE = "CODESIGN_PICTURE"  # the environment variable that names the module the page serves


def source(name: str) -> str:
    """Return the text of a file of `web`: what the browser runs or is styled by."""
    return resources.files(__package__).joinpath("web", name).read_text(encoding="utf-8")


@cache
def bundle() -> Path:
    """Return the path of the pictures' JavaScript module, with Vega in it; make it if need be.

    Where the user's cache cannot be written, it is made for this process alone.
    """
    script = source("picture.js")
    about = f"{script} {alt.SCHEMA_VERSION} {version('vl-convert-python')}"
    name = f"picture-{hashlib.sha256(about.encode()).hexdigest()[:12]}.js"
    path = cache_folder() / name
    if path.is_file():
        return path
    import vl_convert  # 80 MB and some seconds, the first time only

    vega_lite = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    text = vl_convert.javascript_bundle(script, vl_version=vega_lite)
    try:
        write_text(path, text)
    except InputError:
        folder = tempfile.mkdtemp(prefix="codesign-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder, name)
        write_text(path, text)
    return path


class Picture(alt.JupyterChart):
    """An Altair chart whose params are set from Python, and that sends the datum of the point that
    was clicked as a message, if the datum has an `n`.

    It draws on a canvas, which redraws several times faster than SVG. On the page the browser loads
    the module from the page's server, once for all pictures; elsewhere it comes with the widget.
    """

    @property
    def _esm(self) -> str:  # type: ignore[override]
        if MODULE not in os.environ:
            return bundle().read_text(encoding="utf-8")
        url = f"{os.environ.get('VOILA_BASE_URL', '/')}voila/static/{os.environ[MODULE]}"
        return (
            f"const made = await import(new URL({url!r}, document.baseURI));\n"
            "export default made.default;"
        )

    def __init__(self, chart: alt.Chart | alt.LayerChart) -> None:
        super().__init__(chart, embed_options={"renderer": "canvas", "actions": False})

    def set(self, **params: object) -> None:
        """Set some of the chart's params, in one message to the browser."""
        with self.hold_sync():
            for name, value in params.items():
                setattr(self.params, name, value)


class Said(anywidget.AnyWidget):
    """HTML that screen readers read out when it changes."""

    _esm = source("said.js")
    value = traitlets.Unicode().tag(sync=True)


class Bound(anywidget.AnyWidget):
    """A slider and a number field for one value between `low` and `high`, in `unit`.

    `sense` is "at most" or "at least"; `digits` are the decimals that the slider stops at; with
    `log` it is logarithmic, and `low` must be positive.
    """

    _esm = source("bound.js")
    label = traitlets.Unicode().tag(sync=True)
    sense = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    digits = traitlets.Int(0).tag(sync=True)
    log = traitlets.Bool(False).tag(sync=True)
    low = traitlets.Float(0.0).tag(sync=True)
    high = traitlets.Float(1.0).tag(sync=True)
    value = traitlets.Float(1.0).tag(sync=True)

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.value = self.loosest

    @property
    def loosest(self) -> float:
        """The value that asks for nothing."""
        return self.high if self.sense == "at most" else self.low

    @property
    def asked(self) -> float | None:
        """The value, or None where it asks for nothing."""
        return None if self.value == self.loosest else self.value

    def span(self, low: float, high: float) -> bool:
        """Set the range, rounded so that a design at either end keeps to it. A value that asks for
        something and is inside stays. Return False if one was outside and is dropped."""
        step = 10**self.digits
        rounded = np.ceil if self.sense == "at most" else np.floor
        low, high = rounded(low * step) / step, rounded(high * step) / step
        asked, inside = self.asked is not None, bool(low <= self.value <= high)
        with self.hold_sync():
            self.low, self.high = float(low), float(high)
            if not (asked and inside):
                self.value = self.loosest
        return inside or not asked
