"""The page in headless Chromium: it opens from disk, shows values, switches, and asks nothing of a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import finished
import pytest

from fastaniso.runs import Report, load_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
pytest.importorskip("plotly")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("runs")
    runs = (
        finished.scanned(folder / "bert", attention=True),
        finished.scanned(folder / "t5", "t5"),
        finished.measured(folder / "rows"),
    )
    return load_report(*runs)


@pytest.fixture(scope="module")
def path(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.save_html(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path) -> Iterator[Any]:
    """The open page; an error, a warning or a request until the end is a failure."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    seen: list[str] = []
    page.on("console", lambda told: seen.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("request", lambda request: seen.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    page.wait_for_selector("#layers .plot .main-svg")
    yield page
    page.close()
    assert [one for one in seen if not one.startswith(("data:", "blob:"))] == []


@pytest.fixture(scope="module")
def page(browser: Any, path: Path) -> Iterator[Any]:
    with opened(browser, path) as page:
        yield page


def shown(page: Any, selector: str) -> str:
    return str(page.locator(selector).first.text_content())


def test_it_opens_and_draws_every_section(page: Any) -> None:
    for name in ("layers", "drift", "attention", "cosines", "site", "provenance"):
        assert page.locator(f"#contents a[href='#{name}']").count() == 1
        assert page.locator(f"section#{name}").count() == 1
    for plot in page.locator(".plot").all():
        assert plot.locator(".main-svg").count() > 0
        assert len(plot.get_attribute("aria-label")) > 40
    assert page.locator("#layers .scatterlayer .trace").count() == 3


def test_hovering_shows_the_value(page: Any, report: Report) -> None:
    page.locator("#layers").scroll_into_view_if_needed()
    # The first point of the first run.
    point = page.locator("#layers .scatterlayer .trace").first.locator(".point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector("#layers .hoverlayer .hovertext")
    value = report.runs[0].sites[0].values["mean_cosine"]
    assert f"{value:.4g}" in shown(page, "#layers .hoverlayer")
    page.mouse.move(0, 0)


def test_switching_the_metric(page: Any, report: Report) -> None:
    before = page.locator("#layers .plot").evaluate("plot => plot.data[0].y")
    page.locator("#layers select").first.select_option("isoscore")
    after = page.locator("#layers .plot").evaluate("plot => plot.data[0].y")
    assert after == pytest.approx([site.values["isoscore"] for site in report.runs[0].sites], rel=1e-7)
    assert after != before
    assert "centred" in shown(page, "#layers .convention")
    assert "IsoScore" in page.locator("#layers .plot").get_attribute("aria-label")
    page.locator("#layers details summary").click()
    assert page.locator("#layers table caption").text_content() == "IsoScore"
    assert page.locator("#layers tbody tr").count() == len(report.sites) - 1  # without the one site of the rows


def test_every_metric_can_be_chosen_and_some_sites(page: Any) -> None:
    for selector, step in (("#layers select", 1), ("#drift select", 1), ("#attention select", 4), ("#site select", 4)):
        control = page.locator(selector).first
        # In the page, one a frame: a message to the browser for each takes longer than all of them.
        control.evaluate(
            f"async select => {{ for (let i = 0; i < select.options.length; i += {step}) {{"
            " select.selectedIndex = i; select.dispatchEvent(new Event('change'));"
            " await new Promise(requestAnimationFrame); } }"
        )
        assert control.evaluate("select => select.selectedIndex") > 0
    page.locator("#layers select").first.select_option("mean_cosine")


def test_drift_tells_rho_and_the_method(page: Any, report: Report) -> None:
    found = report.runs[0].drift_correlation()[""]
    page.locator("#drift select").select_option("norm_of_mean")
    told = shown(page, "#drift .notes li")
    assert f"ρ = {found.rho:+.2f}".replace("-", "−") in told
    assert "exact permutation" in told


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows(page: Any, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator(".plot .main-svg").all():
        box = plot.bounding_box()
        assert box is None or box["x"] + box["width"] <= width
    sizes = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && e.childNodes.length"
        " && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 10.5  # the exponents of a logarithmic axis; all else is larger
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")


def test_the_keyboard_reaches_everything(page: Any, path: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(path.as_uri())  # anew: from the top
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("[document.activeElement.tagName, document.activeElement.className].join(' ')"))
    assert reached[0] == "A skip"
    controls = page.locator("select, summary, .plot, nav a").count()
    wanted = [name for name in reached if name.startswith(("SELECT", "SUMMARY", "DIV plot", "A"))]
    assert len(wanted) >= controls


def test_arrow_keys_tell_the_points(page: Any, report: Report) -> None:
    page.locator("#layers .plot").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    site = report.runs[0].sites[1]
    said = shown(page, "#told")
    assert site.site in said
    assert f"{site.values['mean_cosine']:.4g}" in said
    assert page.locator("#layers .hoverlayer .hovertext").count() > 0


def test_heads_are_told_one_by_one(page: Any, report: Report) -> None:
    page.locator("#attention select").select_option("cosine_of_means")
    assert "signed" in shown(page, "#attention .convention")
    heads = [attention.values["cosine_of_means"] for attention in report.runs[0].attentions]
    plot = page.locator("#attention .plot").first
    for row, expected in zip(plot.evaluate("plot => plot.data[0].z"), heads, strict=True):
        assert row == pytest.approx(expected, rel=1e-7)
    plot.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert "block.1, head 1" in shown(page, "#told")
    page.locator("#attention .hoverlayer", has_text="block.1, head 1").wait_for(state="attached")
    page.keyboard.press("Escape")
    rate = sum(head > 0.3 for one in report.runs[0].attentions for head in one.values["first_key"])
    assert f"bert: {rate} of 12 heads" in shown(page, "#attention .notes")


def test_lines_differ_by_more_than_colour(page: Any) -> None:
    looks = page.locator("#layers .plot").evaluate(
        "plot => plot.data.map(trace => [trace.line.color, trace.line.dash, trace.marker.symbol])"
    )
    for column in zip(*looks, strict=True):
        assert len(set(column)) == len(looks)


def test_a_page_of_json_alone(browser: Any, report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    shutil.copy(report.runs[0].folder / "scan.json", folder)
    with opened(browser, load_report(folder).save_html(tmp_path / "alone.html")) as page:
        assert "No spectrum here" in page.locator("#site").inner_text()
        assert page.locator("#site figure").first.is_hidden()
        assert "states are not in the folder" in page.locator("#provenance").inner_text()
