"""Draw the pictures of docs/report.md: the report of a sweep on a desktop and on a phone.

python scripts/drawings/report.py SWEEP_DIR
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from coreai_opt.report.__main__ import main as report

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def main(sweep: Path) -> None:
    report([str(sweep), "--no-figures"])
    page = (sweep / "report.html").resolve().as_uri()
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        desktop = opened(browser, page, 1440, 1340, "light")
        desktop.screenshot(path=IMAGES / "report-desktop.png")
        phone = opened(browser, page, 390, 844, "dark", scale=2)
        phone.evaluate("document.querySelector('#accuracy').scrollIntoView()")
        phone.screenshot(path=IMAGES / "report-phone.png")
        browser.close()


def opened(browser: Any, url: str, width: int, height: int, scheme: str, scale: int = 1) -> Any:
    """Return a page on which the charts are drawn."""
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
    )
    page.goto(url)
    page.wait_for_selector("#layers-plot .main-svg")
    page.wait_for_timeout(500)
    return page


if __name__ == "__main__":
    main(Path(sys.argv[1]))
