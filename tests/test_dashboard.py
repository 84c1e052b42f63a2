"""The page in a real Chromium, with every other host cut off, and its logic without one."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
import tiny
from playwright.sync_api import ConsoleMessage, Locator, Page, expect, sync_playwright
from served import Served, served

from codesign_kernel import cost, dashboard, routed
from codesign_kernel.design import Design
from codesign_kernel.explore import SIGNS, Designs
from codesign_kernel.pareto import front
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.study import STUDY, Study, open_study
from codesign_kernel.widgets import Bound, Said, bundle

WAIT = 120_000  # ms; a busy machine is no defect of the page
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
PAINTED = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
    if (data[i + 3] > 0 && Math.max(r, g, b) - Math.min(r, g, b) > 25) count += 1;
  }
  return count;
}"""
WIDER = """() => [document.documentElement, ...document.querySelectorAll("body *")]
  .filter(each => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1)
  .filter(each => each === document.documentElement
    || ["auto", "scroll"].includes(getComputedStyle(each).overflowX))
  .map(each => `${each.tagName} ${each.className} ${each.scrollWidth} > ${each.clientWidth}`)"""
NARROW = (
    "limit => [...document.querySelectorAll('canvas')].every(each => each.clientWidth <= limit)"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small study of two devices."""
    return tiny.study(tmp_path_factory, tmp_path_factory.mktemp("dashboard") / "study")


@pytest.fixture(scope="module")
def server(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page's server."""
    with served(study.root, tmp_path_factory.mktemp("served")) as running:
        yield running


class Seen:
    """What a browser's page asked for and complained about."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@pytest.fixture(scope="module")
def opened(server: Served, browser_path: Path) -> Iterator[tuple[Page, Seen]]:
    """The page, open in a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(WAIT)
        seen = Seen(page)
        page.goto(server.address)
        expect(page.locator(".codesign-page canvas")).to_have_count(4, timeout=WAIT)
        yield page, seen
        browser.close()


@pytest.fixture
def page(opened: tuple[Page, Seen], study: Study) -> Page:
    """The page on the first device, without limits, with the design it suggests."""
    page, _ = opened
    page.get_by_role("button", name="Clear the limits").click()
    for name in reversed(study.devices):
        device = page.get_by_role("combobox", name="Device")
        device.select_option(label=study.devices[name].label)
        # Events are worked off in turn: what was asked for before is done as well.
        expect(page.locator("code")).to_contain_text(f"@{name}", timeout=WAIT)
    return page


def count(page: Page) -> Locator:
    """The sentence that counts."""
    return page.locator("[role=status]", has_text="stored designs")


def numbers(page: Page) -> tuple[int, int]:
    """The designs that keep to the limits, and those on the front, as the page counts them."""
    found = re.match(r"(\S+) of .*; (\S+) on the front", count(page).inner_text())
    assert found
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def keep(designs: Designs, column: int, most: float) -> tuple[int, int]:
    """How many designs are at most that with 90 %, and how many of them are the front."""
    means = designs.means[designs.worst(0.9)[:, column] <= most]
    return len(means), int(front(means * SIGNS).sum())


def field(page: Page, name: str) -> Locator:
    """The number field of a limit."""
    return page.get_by_role("textbox", name=name)


def enter(page: Page, name: str, value: float | str) -> None:
    """Type a limit into its field."""
    field(page, name).fill(str(value))
    field(page, name).press("Enter")


def ask(page: Page, name: str, value: float) -> None:
    """Type a limit that changes the count into its field, and wait until the count has followed."""
    before = count(page).inner_text()
    enter(page, name, value)
    expect(count(page)).not_to_have_text(before, timeout=WAIT)


def picture(page: Page) -> Locator:
    """The canvas of the Pareto picture."""
    return page.locator(".codesign-holder canvas")


def wait_until_painted(page: Page) -> None:
    """Wait until the Pareto picture is there, with its points: it comes after its widget."""
    expect(picture(page)).to_have_count(1, timeout=WAIT)
    page.wait_for_function(
        f"() => {{const canvas = document.querySelector('.codesign-holder canvas');"
        f"return canvas !== null && canvas.width > 0 && ({PAINTED})(canvas) > 1000;}}"
    )


def first(study: Study) -> Designs:
    """The stored designs of the first device."""
    return study.designs()[0][next(iter(study.devices))]


@pytest.mark.browser
def test_page_shows_pictures_counts_and_a_suggestion(page: Page, study: Study) -> None:
    wait_until_painted(page)
    designs = first(study)
    assert numbers(page) == keep(designs, 1, np.inf)
    considered = study.designs()[1][designs.device]
    expect(count(page)).to_contain_text(f"The search considered {considered:,}.")
    expect(page.get_by_text("Suggested: the knee of the front.")).to_be_visible()
    design = Design.parse(page.locator("code").inner_text())
    there = design.accelerator in routed.engines(study.devices[design.device])
    clock = f"MHz, {'measured' if there else 'modelled'}"
    images = "of the 300 validation images with the supernet's weights"
    for source in (f"predicted from measured subnets; {images}", f"Accuracy is that {images}.",
                   "predicted from modelled designs", "no board was measured", clock):  # fmt: skip
        expect(page.get_by_text(source).first).to_be_visible()


@pytest.mark.browser
def test_slider_filters_while_it_moves(page: Page, study: Study) -> None:
    slider = page.get_by_role("slider", name="Latency, at most")
    wait_until_painted(page)
    painted, before = picture(page).evaluate(PAINTED), numbers(page)
    slider.focus()
    for _ in range(3):
        text = count(page).inner_text()
        for _ in range(40):
            slider.press("ArrowLeft")
        expect(count(page)).not_to_have_text(text, timeout=WAIT)
    bound = float(field(page, "Latency, at most").input_value())
    expected = keep(first(study), 1, bound)
    assert expected < before
    expect(count(page)).to_contain_text(f"{expected[0]:,} of", timeout=WAIT)
    assert numbers(page) == expected
    page.wait_for_function(f"limit => ({PAINTED})(document.querySelector("
                           "'.codesign-holder canvas')) < limit", arg=painted)  # fmt: skip
    slider.press("End")
    expect(count(page)).to_contain_text(f"{before[0]:,} of", timeout=WAIT)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "column", "digits", "unit"),
    [("Power, at most", 2, 3, "W"), ("Energy, at most", 3, 4, "mJ")],
)
def test_number_field_filters_and_keeps_to_its_range(
    page: Page, study: Study, name: str, column: int, digits: int, unit: str
) -> None:
    designs = first(study)
    worst = designs.worst(0.9)[:, column]
    middle = float(f"{np.median(worst):.{digits}f}")
    ask(page, name, middle)
    assert numbers(page) == keep(designs, column, middle)
    slider = page.get_by_role("slider", name=name)
    assert slider.get_attribute("aria-valuetext") == f"{middle:g} {unit}"
    ask(page, name, 1e6)
    assert numbers(page) == keep(designs, column, np.inf)
    highest = np.ceil(worst.max() * 10**digits) / 10**digits
    assert float(field(page, name).input_value()) == pytest.approx(highest)


@pytest.mark.browser
def test_limits_on_resources_count_the_front_they_leave(page: Page, study: Study) -> None:
    designs = first(study)
    need = cost.resources(designs.accelerators, study.device(designs.device))
    bound = int(np.median(need.bram))
    ask(page, "Block RAM, at most", bound)
    means = designs.means[need.bram <= bound]
    assert numbers(page) == (len(means), int(front(means * SIGNS).sum()))


@pytest.mark.browser
def test_limits_that_leave_nothing_say_what_the_nearest_design_needs(page: Page) -> None:
    page.get_by_role("slider", name="Latency, at most").press("Home")
    page.get_by_role("slider", name="Accuracy, at least").press("End")
    told = "No stored design keeps to all limits. The nearest keeps to a"
    expect(page.get_by_text(told)).to_be_visible(timeout=WAIT)
    expect(count(page)).to_contain_text("0 on the front", timeout=WAIT)
    assert numbers(page) == (0, 0)
    shown = page.get_by_text("This design does not keep to the limits. It is the nearest.")
    expect(shown).to_be_visible(timeout=WAIT)
    expect(page.get_by_role("button", name="Next faster on the front")).to_be_disabled()


@pytest.mark.browser
def test_device_shows_its_own_designs(page: Page, study: Study) -> None:
    name = list(study.devices)[1]
    text = count(page).inner_text()
    page.get_by_role("combobox", name="Device").select_option(label=study.device(name).label)
    expect(count(page)).not_to_have_text(text, timeout=WAIT)
    assert numbers(page) == keep(study.designs()[0][name], 1, np.inf)
    expect(page.locator("code")).to_contain_text(f"@{name}", timeout=WAIT)
    wait_until_painted(page)


@pytest.mark.browser
def test_click_shows_the_design_of_the_point(page: Page, study: Study) -> None:
    suggested = page.locator("code").inner_text()
    wait_until_painted(page)
    box = picture(page).bounding_box()
    assert box
    # Where the points are depends on what was measured: the first of these places that has one
    # within reach, and not the suggestion.
    for across, along in itertools.product((0.3, 0.4, 0.5, 0.6), (0.3, 0.4, 0.5, 0.6)):
        picture(page).click(position={"x": box["width"] * across, "y": box["height"] * along})
        with contextlib.suppress(AssertionError):
            expect(page.locator("code")).not_to_have_text(suggested, timeout=10_000)
            break
    expect(page.get_by_text("The design you chose.")).to_be_visible(timeout=WAIT)
    text = page.locator("code").inner_text()
    assert text != suggested
    predicted = study.predict([study.find(text)]).iloc[0]
    table = page.locator(".codesign-page table")
    expect(table).to_contain_text(f"{predicted.accuracy:.2f} %")
    expect(table).to_contain_text(f"{predicted.latency_ms:.4f} ms")
    expect(table).to_contain_text(f"{predicted.power_w_low:.3f} to {predicted.power_w_high:.3f} W")
    expect(page.get_by_role("heading", name=f"Design {predicted.id}")).to_be_visible()
    page.get_by_role("button", name="Suggest a design").click()
    expect(page.locator("code")).to_have_text(suggested, timeout=WAIT)


@pytest.mark.browser
def test_a_limit_out_of_range_is_told_until_the_next_one(page: Page, study: Study) -> None:
    name = "Latency, at most"
    low = f"{np.ceil(first(study).worst(0.9)[:, 1].min() * 1e4) / 1e4:g}"
    enter(page, name, -5)
    told = page.locator(".codesign-bound output").first
    expect(told).to_contain_text(f"“-5” is out of range: it can be from {low} to")
    expect(told).to_contain_text(f"and is now {low}.")
    expect(field(page, name)).to_have_value(low)
    page.get_by_role("button", name="Clear the limits").click()
    expect(told).to_be_empty()


@pytest.mark.browser
@pytest.mark.parametrize("text", ["0,3", "", "1e", "fast", "0x10", "1.2.3"])
def test_a_limit_that_is_no_number_is_told_and_changes_nothing(page: Page, text: str) -> None:
    name, before = "Latency, at most", count(page).inner_text()
    value = field(page, name).input_value()
    enter(page, name, text)
    told = page.locator(".codesign-bound output").first
    expect(told).to_contain_text(f"“{text}” is no number with a decimal point: it can be from")
    expect(field(page, name)).to_have_value(value)
    assert count(page).inner_text() == before


@pytest.mark.browser
def test_a_limit_on_blocks_is_a_whole_number(page: Page, study: Study) -> None:
    need = cost.resources(first(study).accelerators, study.device(first(study).device))
    least = int(need.dsp.min())
    enter(page, "DSP, at most", f"{least}.5")
    told = page.locator(".codesign-bound output", has_text="whole number")
    expect(told).to_contain_text(f"“{least}.5” is no whole number: it can be from {least} to")
    expect(field(page, "DSP, at most")).to_have_value(str(least))


@pytest.mark.browser
def test_buttons_go_along_the_front(page: Page, study: Study) -> None:
    def latency() -> float:
        row = page.get_by_role("row", name=re.compile("^Latency")).inner_text()
        return float(re.search(r"([\d.]+) ms", row)[1])  # type: ignore[index]

    design, before = page.locator("code"), latency()
    text = design.inner_text()
    page.get_by_role("button", name="Next faster on the front").click()
    expect(design).not_to_have_text(text, timeout=WAIT)
    assert latency() <= before
    page.get_by_role("button", name="Next slower on the front").click()
    expect(design).to_have_text(text, timeout=WAIT)


@pytest.mark.browser
def test_page_says_what_a_design_keeps_to(page: Page, study: Study) -> None:
    designs = first(study)
    design = study.find(page.locator("code").inner_text())
    table = study.predict([design]).iloc[0]
    # Two designs may be as fast as each other.
    at = np.abs(designs.means - table[[*QUANTITIES]].to_numpy(float)).sum(axis=1).argmin()
    worst = designs.worst(0.9)[at]
    for kept in (
        f"accuracy of at least {worst[0]:.2f} %", f"latency of at most {worst[1]:.4f} ms",
        f"power of at most {worst[2]:.3f} W", f"energy of at most {worst[3]:.4f} mJ",
    ):  # fmt: skip
        expect(page.get_by_text(kept)).to_be_visible()
    expect(page.get_by_text("cleared: limit")).to_have_count(0)


@pytest.mark.browser
def test_everything_that_is_operated_has_a_name(page: Page) -> None:
    lines = page.locator(".codesign-page").aria_snapshot().splitlines()
    operated = [line for line in lines if re.match(r"\s*- (slider|textbox|combobox|button)", line)]
    assert len([line for line in operated if "slider" in line]) == 6
    assert len(operated) == 6 + 6 + 1 + 5
    assert [line for line in operated if not re.search(r'- \w+ "[^"]{3,}"', line)] == []
    assert len(set(operated)) == len(operated)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    try:
        page.wait_for_function(NARROW, arg=width)
        assert page.evaluate(WIDER) == []
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.browser
def test_the_interval_is_named_where_there_is_no_room_for_headings(page: Page) -> None:
    cell = page.locator(".codesign-page td:nth-child(3)").first
    label = "each => getComputedStyle(each, '::before').content"
    assert cell.evaluate(label) == "none"
    page.set_viewport_size({"width": 390, "height": 900})
    try:
        assert cell.evaluate(label) == '"90 %: "'
        right = "[...document.querySelectorAll('td')].map(e => e.getBoundingClientRect().right)"
        assert max(page.evaluate(right)) <= 390  # what is cut off there cannot be scrolled to
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.browser
def test_the_keyboard_s_place_is_seen_on_the_device(page: Page) -> None:
    device = page.get_by_role("combobox", name="Device")
    device.focus()
    device.press("Shift")
    assert device.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"


@pytest.mark.browser
def test_export_writes_the_design_while_the_page_goes_on(
    page: Page, study: Study, server: Served
) -> None:
    identifier = page.locator("h2", has_text="Design d").inner_text().split()[1]
    button = page.get_by_role("button", name="Export this design")
    button.click()
    expect(page.get_by_text(f"Exporting {identifier}")).to_be_visible(timeout=WAIT)
    expect(button).to_be_disabled(timeout=WAIT)
    ask(page, "Latency, at most", float(np.median(first(study).worst(0.9)[:, 1])))
    expect(page.get_by_text(f"Wrote {server.folder / 'exports' / identifier}")).to_be_visible(
        timeout=WAIT
    )
    assert (server.folder / "exports" / identifier / "model.onnx").exists()
    expect(button).to_be_enabled(timeout=WAIT)


@pytest.mark.browser
def test_export_that_fails_says_why(page: Page, study: Study) -> None:
    away = study.supernet_path.rename(study.root / "away")
    try:
        page.get_by_role("button", name="Export this design").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("supernet.safetensors does not exist", timeout=WAIT)
        tiny.assert_one_sentence(alert.inner_text())
    finally:
        away.rename(study.supernet_path)


def kernels(server: Served, like: str = "ipykernel") -> list[int]:
    """The processes of the server's kernels, or those whose command has `like` in it."""
    found = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(server.process.pid)],
                           capture_output=True, text=True)  # fmt: skip
    return [int(line.split()[0]) for line in found.stdout.splitlines() if like in line]


@pytest.mark.browser
def test_a_kernel_ends_with_its_page(opened: tuple[Page, Seen], server: Served) -> None:
    before = kernels(server)
    assert before
    other = opened[0].context.browser.new_page()  # type: ignore[union-attr]
    other.goto(server.address)
    expect(other.locator(".codesign-page canvas")).to_have_count(4, timeout=WAIT)
    assert len(kernels(server)) == len(before) + 1
    other.reload()
    expect(other.locator(".codesign-page canvas")).to_have_count(4, timeout=WAIT)
    other.goto("about:blank")
    end = time.monotonic() + WAIT / 1000
    while kernels(server) != before and time.monotonic() < end:
        other.wait_for_timeout(100)
    assert kernels(server) == before
    other.close()


BANNER = "getComputedStyle(document.body, '::before').content"
KERNEL = "JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId"


@pytest.fixture
def other(server: Served, opened: tuple[Page, Seen]) -> Iterator[Page]:
    """A second page, of a visitor of its own, whose banner does not show."""
    other = opened[0].context.browser.new_page()  # type: ignore[union-attr]
    other.set_default_timeout(WAIT)
    other.goto(server.address)
    expect(other.locator(".codesign-page canvas")).to_have_count(4, timeout=WAIT)
    assert other.evaluate(BANNER) == "none"
    yield other
    other.close()


@pytest.mark.browser
def test_a_page_whose_kernel_died_says_so(server: Served, other: Page) -> None:
    (own,) = kernels(server, other.evaluate(KERNEL))
    os.kill(own, signal.SIGKILL)
    other.wait_for_function(f"() => {BANNER}.includes('reload it')")


@pytest.mark.browser
def test_a_page_whose_kernel_was_ended_says_so(server: Served, other: Page) -> None:
    ended = f"{server.address}voila/api/shutdown/{other.evaluate(KERNEL)}"
    assert other.request.post(ended).ok
    other.wait_for_function(f"() => {BANNER}.includes('reload it')")


@pytest.mark.browser
def test_a_page_says_so_while_it_does_not_reach_its_server(other: Page) -> None:
    other.context.set_offline(True)
    other.wait_for_function(f"() => {BANNER}.includes('reload it')")
    other.context.set_offline(False)
    other.wait_for_function(f"() => {BANNER} === 'none'")


@pytest.mark.browser
def test_nothing_was_asked_of_another_host_and_nothing_failed(
    opened: tuple[Page, Seen], server: Served
) -> None:
    seen = opened[1]
    here = server.address.split("//")[1]
    assert len(seen.requests) > 20
    kinds = tuple(f"{scheme}://{here}" for scheme in ("http", "ws"))
    assert [url for url in seen.requests if not url.startswith((*kinds, "data:", "blob:"))] == []
    assert seen.errors == []


def words(widget: ipywidgets.Widget) -> str:
    """All the text of a widget and its children."""
    if isinstance(widget, (ipywidgets.HTML, Said)):
        return str(widget.value)
    return " ".join(words(child) for child in getattr(widget, "children", ()))


@pytest.mark.parametrize("lacks", ["study.json", "designs.safetensors", "fit.json"])
def test_a_study_that_cannot_be_read_is_a_sentence_on_the_page(
    monkeypatch: pytest.MonkeyPatch, study: Study, tmp_path: Path, lacks: str
) -> None:
    for path in study.root.iterdir():
        if path.name != lacks:
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.setenv(STUDY, str(tmp_path))
    sentence = re.search(r"<p role='alert'>(.*)</p>", words(dashboard.show()))
    assert sentence
    assert str(tmp_path) in sentence[1]
    tiny.assert_one_sentence(sentence[1])


def test_the_study_of_the_notebooks_is_shown_once_it_was_explored(
    monkeypatch: pytest.MonkeyPatch, study: Study, tmp_path: Path
) -> None:
    monkeypatch.delenv(STUDY, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-study").mkdir()
    assert "Study fashion:" in words(dashboard.show())
    for path in study.root.iterdir():
        (tmp_path / "my-study" / path.name).symlink_to(path)
    assert "Study my-study:" in words(dashboard.show())
    monkeypatch.setenv(STUDY, str(study.root))
    assert f"Study {study.root.name}:" in words(dashboard.show())


def test_page_loads_neither_torch_nor_the_surrogates(study: Study) -> None:
    bundle()  # what draws the picture is made once, by `codesign page` before it serves
    code = (
        "import sys; from codesign_kernel import dashboard; dashboard.show();"
        "print(*{'torch', 'sklearn', 'scipy', 'vl_convert', 'voila'} & set(sys.modules))"
    )
    environment = {**os.environ, STUDY: str(study.root)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                            text=True)  # fmt: skip
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def run_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in a thread of its own: the browser's fixture holds a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(main())).result()


async def until(condition: Any) -> None:
    """Let the page's tasks run until the condition holds."""
    while not condition():
        await asyncio.sleep(0.01)


def test_suggestion_follows_the_limits_until_a_point_is_clicked(
    monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    monkeypatch.setattr(dashboard, "PAUSE", 0.02)

    async def run() -> None:
        shown = dashboard.Dashboard(open_study(study.root))
        latency = shown.bounds["latency_ms"]
        fastest = float(shown.cloud.values["latency_ms"].quantile(0.02))
        assert shown.index == shown.best
        latency.value = fastest
        assert shown.index != shown.best  # not while the slider moves
        await until(lambda: shown.index == shown.best)
        assert shown.row.latency_ms <= fastest
        point = int(np.flatnonzero(shown.cloud.points != shown.index)[0])
        shown._click(point)
        latency.value = latency.loosest
        await asyncio.sleep(0.1)
        assert shown.index == shown.cloud.points[point]
        shown._follow()
        latency.value = fastest  # another design is about to be suggested ...
        shown.device.value = list(study.devices)[1]  # ... and must not be, on another device
        chosen = shown.index
        await asyncio.sleep(0.1)
        assert shown.index == chosen == shown.best

    run_loop(run)


@pytest.mark.parametrize(
    ("sense", "value", "asked", "stays"),
    [
        ("at most", 1.0, 1.0, True),  # the tightest: there is a design that keeps to it
        ("at most", 2.0, 2.0, True),
        ("at most", 3.0, None, True),  # asks for nothing of these designs: nothing was dropped
        ("at most", 3.1, None, False),
        ("at most", 0.9, None, False),
        ("at least", 3.0, 3.0, True),
        ("at least", 1.0, None, True),
        ("at least", 3.1, None, False),
        ("at least", 0.9, None, False),
    ],
)
def test_a_limit_inside_the_range_stays(
    sense: str, value: float, asked: float | None, stays: bool
) -> None:
    bound = Bound(sense=sense, digits=1)
    bound.span(0.0, 9.0)
    bound.value = value
    assert bound.span(1.0, 3.0) == stays
    assert bound.asked == asked


def test_a_limit_stays_on_another_device_where_it_is_inside_the_range(study: Study) -> None:
    async def run() -> None:
        shown = dashboard.Dashboard(open_study(study.root))
        one, other = (shown.clouds[name].values for name in study.devices)
        inside = float(max(one["accuracy"].min(), other["accuracy"].min()) + 1)
        shown.bounds["accuracy"].value = inside
        shown.bounds["dsp"].value = float(one["dsp"].min())
        shown.device.value = list(study.devices)[1]
        assert shown.constraints.min_accuracy == inside
        assert other["dsp"].min() > one["dsp"].min()
        assert shown.constraints.max_dsp is None
        assert shown.constraints.max_latency_ms is None
        assert "cleared: limit on DSP.</p>" in shown.counts.value
        shown.bounds["latency_ms"].value = shown.bounds["latency_ms"].low
        assert "cleared" not in shown.counts.value

    run_loop(run)
