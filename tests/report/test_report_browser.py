"""The page in a browser: drawn, sorted and filtered, by keyboard as well; it asks for nothing."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.__main__ import main
from coreai_opt.report.page.live import Live, server_of
from tests.helpers.synthetic_records import hostile_sweep, make_record, make_sweep, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("it's a=b, ü")
    make_sweep(root, runs=48)
    write_run(root / "it failed", make_record(status="failed", seed=99))
    main([str(root), "--no-figures"])
    return root / "report.html"


class Opened:
    """A page, and what it asked for and complained of."""

    def __init__(
        self, browser: Any, path: Path, size: Any = DESKTOP, scheme: str = "light"
    ) -> None:
        context = browser.new_context(viewport=size, color_scheme=scheme)
        context.set_offline(True)
        self.page = context.new_page()
        self.trouble: list[str] = []
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: self.trouble.append(dialog.message))
        self._own = path.as_uri()
        self.page.goto(self._own)
        self.page.wait_for_selector("#accuracy-plot .main-svg")

    def _asked(self, url: str) -> None:
        if url != self._own and not url.startswith("data:"):
            self.trouble.append(f"asked for {url}")

    def column(self, number: int, table: str = "runs") -> list[str]:
        rows = f"#{table} tbody tr:not([hidden])"
        script = f"rows => rows.map(row => row.cells[{number}].textContent.trim())"
        return self.page.eval_on_selector_all(rows, script)  # type: ignore[no-any-return]

    def drawn(self, chart: str, marks: str) -> int:
        return int(self.page.locator(f"#{chart}-plot {marks}").count())


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_charts_are_drawn_and_fit_and_nothing_is_asked_for(
    browser: Any, sweep: Path, size: Any, scheme: str
) -> None:
    opened = Opened(browser, sweep, size, scheme)
    assert opened.drawn("accuracy", ".points path.point") == 16
    assert opened.drawn("heatmap", ".hm image") == 1
    assert opened.drawn("parallel", ".scatterlayer .lines path") == 15
    assert opened.drawn("importance", ".barlayer .point") == 2
    assert opened.drawn("schedules", ".scatterlayer .lines path") >= 15
    assert opened.drawn("layers", ".barlayer .point") == 3
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"]
    opened.page.wait_for_timeout(300)
    assert opened.trouble == []


def test_dark_and_light_have_their_colours_and_the_button_changes_them(
    browser: Any, sweep: Path
) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#accuracy-plot .xtick text')).fill"
    light, dark = (Opened(browser, sweep, scheme=scheme).page for scheme in ("light", "dark"))
    assert light.evaluate(ground) == "rgb(255, 255, 255)"
    colours = [dark.evaluate(ground), dark.evaluate(ink)]
    assert colours == ["rgb(15, 19, 23)", "rgb(230, 234, 239)"]
    button = light.get_by_role("button", name="Dark colours")
    button.click()
    assert [light.evaluate(ground), light.evaluate(ink)] == colours
    light.get_by_role("button", name="Light colours").click()
    assert light.evaluate(ground) == "rgb(255, 255, 255)"


def test_the_table_sorts_by_keyboard_and_says_so(browser: Any, sweep: Path) -> None:
    opened = Opened(browser, sweep)
    page = opened.page
    header = page.locator("#runs thead th", has_text="test/accuracy")
    number = header.evaluate("cell => cell.cellIndex")
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    up = opened.column(number)
    values = [float(text.rstrip(" %")) for text in up if text]
    assert values == sorted(values)
    assert len(values) == 48
    assert up[-1] == ""  # the failed run has none: it comes last
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    down = opened.column(number)
    assert down == [*reversed(up[:-1]), ""]
    page.locator("#runs thead th", has_text="total_iters").get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "none"


def test_the_table_filters_by_words_and_status_and_says_how_many(browser: Any, sweep: Path) -> None:
    opened = Opened(browser, sweep)
    page = opened.page
    told = page.locator("#runs-count")
    assert told.get_attribute("role") == "status"
    assert told.inner_text() == "49 of 49 runs are shown"
    page.get_by_label("status").select_option("failed")
    assert opened.column(0) == ["it failed"]
    assert told.inner_text() == "1 of 49 runs are shown"
    page.get_by_label("status").select_option("all")
    page.get_by_label("filter").focus()
    page.keyboard.type("NONE completed")
    assert opened.column(0) == opened.column(0)[:3]
    assert told.inner_text() == "3 of 49 runs are shown"


def test_the_table_is_reached_and_scrolled_by_keyboard(browser: Any, sweep: Path) -> None:
    page = Opened(browser, sweep, PHONE).page
    region = page.get_by_role("region", name="Runs, can be scrolled")
    region.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "() => { const at = document.activeElement; return at.scrollTop > 0 && at.scrollLeft > 0; }"
    )
    names = page.locator("table > caption").count()
    assert names == page.locator("table").count()
    assert (
        page.locator("td button, thead th:not([scope=col]), tbody th:not([scope=row])").count() == 0
    )
    # From the top of the page the first thing is the way past its head.
    page.goto(page.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_the_select_boxes_draw_anew_and_change_the_tables(browser: Any, sweep: Path) -> None:
    opened = Opened(browser, sweep)
    page = opened.page
    page.get_by_label("across").select_option(label="power")
    assert page.get_by_label("up", exact=True).input_value() != "0"  # an axis for each
    page.get_by_label("up", exact=True).select_option(label="target_sparsity")
    title = page.locator("#heatmap-plot .xtitle")
    assert title.text_content() == "power"
    headers = page.locator("#heatmap-table thead th").all_text_contents()
    assert headers[:2] == ["target_sparsity", "power"]
    assert opened.column(4, "heatmap-table") == ["3"] * 15
    assert page.get_by_label("only target_sparsity").is_hidden()
    page.get_by_label("configuration").select_option(index=3)
    assert opened.column(2, "layers-table") == ["75.00 %"] * 3
    assert page.locator("#layers-plot .bartext").all_text_contents() == ["75.0 %"] * 3
    assert "75.0 % on average" in page.locator("#layers-caption").inner_text()
    page.get_by_role("button", name="Pareto front").click()
    assert page.get_by_role("button", name="Pareto front").get_attribute("aria-pressed") == "false"
    assert opened.trouble == []


def test_html_in_names_does_nothing(browser: Any, tmp_path: Path) -> None:
    root = hostile_sweep(tmp_path / "s")
    main([str(root), "--no-figures"])
    opened = Opened(browser, root / "report.html", PHONE)
    page = opened.page
    assert "pwned" in page.title()
    assert page.title() != "pwned"
    assert page.locator("img, svg image[href^=x], a[href^=javascript]").count() == 0
    for index in range(page.locator("#layers-group option").count()):
        page.get_by_label("configuration").select_option(index=index)
    ticks = page.locator("#layers-plot .ytick text").all_text_contents()
    assert any("%{x}$a$" in text for text in ticks)
    page.locator("#accuracy-plot .points path.point").first.hover(force=True)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.trouble == []
    assert page.title() != "pwned"


def test_two_runs_are_chosen_and_stand_side_by_side(browser: Any, sweep: Path) -> None:
    opened = Opened(browser, sweep)
    page = opened.page
    dense, pruned = opened.column(0)[0], opened.column(0)[3]
    page.get_by_label("first run").select_option(label=dense)
    page.get_by_label("second run").select_option(label=pruned)
    keys = opened.column(0, "pair-values")
    assert {"target_sparsity", "power", "total_iters"} <= set(keys)
    assert not [key for key in keys if "run_dir" in key]
    at = keys.index("target_sparsity")
    assert [opened.column(1, "pair-values")[at], opened.column(2, "pair-values")[at]] == [
        "0.9",
        "0.5",
    ]
    numbers = dict(
        zip(opened.column(0, "pair-metrics"), opened.column(3, "pair-metrics"), strict=True)
    )
    assert numbers["achieved"] == "+0.5"
    page.get_by_label("second run").select_option(label=dense)
    assert opened.column(0, "pair-values") == []
    assert page.locator("#pair-count").inner_text().startswith("0 keys of the config")
    assert opened.trouble == []


def test_a_live_page_comes_anew_with_what_was_chosen(browser: Any, tmp_path: Path) -> None:
    make_sweep(tmp_path, runs=24)
    live = Live((tmp_path,))
    live.renew()
    with server_of(live) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _check_live_page(browser, live, f"http://127.0.0.1:{server.server_port}/", tmp_path)
        finally:
            server.shutdown()
            thread.join()


def _check_live_page(browser: Any, live: Live, url: str, root: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#accuracy-plot .main-svg")
    page.get_by_label("filter").fill("completed")
    page.get_by_label("across").select_option(label="target_sparsity")
    page.get_by_role("button", name="Dark colours").click()
    page.get_by_role("button", name="Pareto front").click()
    page.locator("#runs thead th", has_text="seed").first.get_by_role("button").click()
    page.evaluate("window.scrollTo(0, 900)")
    write_run(root / "it came later", make_record(0.5, seed=77))
    assert live.renew()
    page.wait_for_selector("text=25 of 25 runs are shown", timeout=15_000)
    assert page.get_by_label("filter").input_value() == "completed"
    across = "[...document.getElementById('heatmap-x').selectedOptions][0].textContent"
    assert page.evaluate(across) == "target_sparsity"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    pressed = page.get_by_role("button", name="Pareto front").get_attribute("aria-pressed")
    assert pressed == "false"
    sorted_by = page.locator("#runs thead th", has_text="seed").first.get_attribute("aria-sort")
    assert sorted_by == "ascending"
    assert page.evaluate("window.scrollY") == 900
    assert trouble == []
