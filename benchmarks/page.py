"""A picture of the page, as a browser shows it.

    pip install '.[test]'
    python benchmarks/page.py data/studies/fashion benchmarks/page.png --browser /usr/bin/chromium

Serves the page of a study, asks for a latency of 1 ms or less, and takes the picture.
"""

import argparse
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from codesign_kernel.files import replacing

SIZE = {"width": 1280, "height": 1130}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def picture(address: str, browser_path: str) -> Image.Image:
    """Return the page at an address once a limit was set and all is drawn."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport=SIZE)
        page.goto(address)
        page.wait_for_selector("canvas", timeout=90_000)
        limit = page.get_by_role("textbox", name="Latency, at most")
        before = page.inner_text("body")
        limit.fill("1")
        limit.press("Enter")
        limit.blur()
        page.wait_for_function("text => document.body.innerText !== text", arg=before)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(3000)
        taken = page.screenshot()
        browser.close()
    return Image.open(BytesIO(taken)).convert("RGB")


def main() -> None:
    """Serve, take the picture, end the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "codesign_kernel.cli", "page", "--no-browser"]
    with subprocess.Popen([*command, "--study", str(asked.study)],
                          stdout=subprocess.PIPE, text=True) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            line = next(line for line in server.stdout if "http://" in line)
            address = re.search(r"http://\S+/", line)
            assert address
            taken = picture(address[0], asked.browser)
        finally:
            server.terminate()
    with replacing(asked.png) as temporary:
        taken.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main()
