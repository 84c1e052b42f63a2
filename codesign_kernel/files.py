"""Files that are whole or absent: written atomically, read with one clear sentence for an error.

Weights and tables of numbers are stored as safetensors, settings as JSON or TOML; pickle never is.
"""

import fcntl
import hashlib
import json
import os
import secrets
import stat
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from .errors import InputError, shown


def cache_folder() -> Path:
    """Return this program's folder in the user's cache, which may not be there yet. Raises
    InputError if neither XDG_CACHE_HOME nor HOME says where it is."""
    home = os.environ.get("HOME", "/")  # without one, the system knows the user's
    named = os.environ.get("XDG_CACHE_HOME")
    if not (named or os.path.isabs(home)):
        raise InputError(
            f"HOME is {shown(home)}, but must be an absolute path, or XDG_CACHE_HOME be a folder."
        )
    return Path(os.path.expanduser(named or "~/.cache"), "codesign").absolute()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`: on success it replaces `path`, on failure it is removed.

    A reader sees the old file or the new one, never a part. A link stays, and what it leads to is
    replaced; the mode of a file that is there stays, too. Raises InputError when the folder cannot
    be written, the disk is full, or a device or pipe is there; `path` is then untouched.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        there = path.stat().st_mode if path.exists() else None
        if there is not None and not stat.S_ISREG(there):
            raise OSError("Not a regular file")
        target.parent.mkdir(parents=True, exist_ok=True)
        # What replaces a private file is private from the start.
        temporary.touch(0o666 if there is None else 0o600, exist_ok=False)
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        if there is not None:
            temporary.chmod(stat.S_IMODE(there))
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {_reason(error)}; nothing changed.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_out(field: str, out: Path) -> None:
    """Refuse, before the work is done, to write its result where no file can be. Raises
    InputError."""
    try:
        if out.exists() and not out.is_file():
            raise InputError(f"{field} is {out}, but must be a file.")
        folder = next(each for each in Path(os.path.realpath(out)).parents if each.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{field} {out} cannot be written: {_reason(error)}.") from None


def no_others(folder: Path, own: Iterable[str]) -> None:
    """Refuse a folder to write that holds other files than those. Raises InputError."""
    try:
        others = sorted({path.name for path in folder.iterdir()} - {*own})
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {_reason(error)}.") from None
    if others:
        raise InputError(f"{folder} holds {others[0]}, which this would lose: name a new folder.")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file or folder that exists against other commands that ask to be alone with it; wait,
    and say so, while another holds it. What is held ends with its process."""
    held = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that has no locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                folder = path if path.is_dir() else path.parent
                told = f"codesign: waiting for another command that works on {folder} to end."
                print(told, file=sys.stderr, flush=True)
                fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write `value` to `path` atomically as JSON; NaN is refused, JSON has none."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises InputError if it is absent or is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, but must hold an object.")
    return value


def read_json_table(
    path: Path, key: str, texts: Sequence[str], finite: Sequence[str]
) -> pd.DataFrame:
    """Return the table under `key` of a JSON file, by row or by column. Raises InputError unless
    its columns `texts` hold texts, all others numbers or null, those of `finite` finite numbers."""
    content: Any = read_json(path).get(key)
    kind, parts = (list, content.values()) if isinstance(content, dict) else (dict, content)
    try:
        if not all(isinstance(part, kind) for part in parts):
            raise TypeError
        frame = pd.DataFrame(content)
        whole = bool(frame[[*texts]].map(lambda value: isinstance(value, str)).all(axis=None))
        for name in frame.columns.difference([*texts]):
            frame[name] = pd.to_numeric(frame[name])
        whole = bool(whole and np.isfinite(frame[[*finite]].to_numpy(np.float64)).all())
    except (KeyError, TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged: its {key} is no table of this program.")
    return frame


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table in the TOML file `path`. Raises InputError if it is absent or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not valid TOML: it is no text in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write named arrays and their JSON-able description to a safetensors file, atomically."""
    packed = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    blob = safetensors.numpy.save(packed, metadata={"about": json.dumps(about, allow_nan=False)})
    with replacing(path) as temporary:
        temporary.write_bytes(blob)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the description in a safetensors file that `write_arrays` wrote.

    Raises InputError if the file is absent, truncated or of another kind.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            about = json.loads((stream.metadata() or {})["about"])
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}.") from None
    # TypeError and AttributeError: what safetensors raises for types that NumPy does not have.
    except (
        safetensors.SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InputError(f"{path} is damaged or not of this program: {error}.") from None
    if not isinstance(about, dict):
        raise InputError(f"{path} is not of this program: its description is no JSON object.")
    for name, array in arrays.items():
        if array.dtype.isbuiltin != 1:  # such as bfloat16, which another package may add to NumPy
            raise InputError(f"{path} is not of this program: {name} is of {array.dtype}.")
    return arrays, about


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def fingerprint(content: str) -> str:
    """Return what a file of the cache is called by, of what it holds."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def digest(path: Path) -> str:
    """Return 12 hexadecimal digits that follow from the content of the file. Raises InputError."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}.") from None
