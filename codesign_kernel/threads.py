"""Work in several threads, with a bar whose clock goes on, that ends soon after it is stopped."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
MOST = 4  # workers that nobody asked for: others are on the machine, too


def workers() -> int:
    """Return how many to start if nobody says: one a core that this process may use, 4 at most."""
    here = getattr(os, "sched_getaffinity", None)  # there is none on macOS
    return min(MOST, len(here(0)) if here else os.cpu_count() or 1)


def ranks() -> tuple[int, int]:
    """Return which of torchrun's processes this is, and how many there are: 0 of 1 without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


_here = threading.local()
_doing: dict[int, str] = {}  # what each thread waits for


def stopping() -> threading.Event:
    """Return the event that is set when what this thread does is no longer wanted."""
    stop: threading.Event = getattr(_here, "stop", None) or threading.Event()
    return stop


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Have the bars of `ticking` name what this thread waits for, such as a tool."""
    _doing[threading.get_ident()] = what
    try:
        yield
    finally:
        _doing.pop(threading.get_ident(), None)


@contextmanager
def ticking(bar: "tqdm[Any]") -> Iterator[None]:
    """Have a bar move every second, though what it counts takes long: its clock goes on, and it
    names what threads are `doing`."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(1.0):
            counts = Counter(_doing.copy().values())
            names = (f"{n} x {what}" if n > 1 else what for what, n in sorted(counts.items()))
            bar.set_postfix_str(", ".join(names))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def in_threads(jobs: Sequence[Callable[[], T]], workers: int, label: str, unit: str) -> list[T]:
    """Do jobs, `workers` at once, and return what each gives.

    If one raises, or this is interrupted, those that run are told by `stopping`, those that wait
    for a thread are dropped, and the error is raised once no thread is left.
    """
    stop = threading.Event()

    def work(job: Callable[[], T]) -> T:
        _here.stop = stop
        return job()

    bar = tqdm(desc=label, total=len(jobs), unit=unit)
    with bar, ticking(bar), ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(work, job) for job in jobs]
            for each in as_completed(futures):
                each.result()
                bar.update()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [each.result() for each in futures]
