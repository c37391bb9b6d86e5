"""A report: its figures by matplotlib, and what the page is made of. In a browser: ``test_report_browser``."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import finished
import pytest

import fastaniso
from fastaniso.report.payload import payload
from fastaniso.runs import Report, load_report

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.scanned(tmp_path_factory.mktemp("runs") / "bert", attention=True)


@pytest.fixture(scope="module")
def report(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("runs")
    t5 = finished.scanned(folder / "t5", "t5")
    return load_report(bert, t5, finished.measured(folder / "vectors"))


def lines_of(figure: Any) -> list[Any]:
    return [line for axes in figure.axes for line in axes.get_lines()]


def test_a_metric_over_the_layers(report: Report, bert: Path) -> None:
    (axes,) = load_report(bert).plot("mean_cosine").axes
    line, *_ = axes.get_lines()  # after it the caps of its bars
    values = [site.values["mean_cosine"] for site in report.runs[0].sites]
    assert line.get_ydata().tolist() == values
    assert [label.get_text() for label in axes.get_xticklabels()] == ["emb.", "0", "1", "2"]
    # a line each for bert, both stacks of t5, and the one point of the vectors
    many = lines_of(report.plot("isoscore"))
    assert len(many) == 4
    assert len({line.get_marker() for line in many}) == len({line.get_color() for line in many}) == 4


def test_every_figure_is_drawn(report: Report, tmp_path: Path) -> None:
    for what in ("drift", "spectrum", "top_dimensions", "pairs", "heads.entropy", "heads.cosine_of_means"):
        report.plot(what).savefig(tmp_path / f"{what}.svg")
        assert (tmp_path / f"{what}.svg").stat().st_size > 5000


def test_heads_are_a_map_of_attentions_by_heads(report: Report) -> None:
    (axes, _) = report.plot("heads.cosine_of_means").axes  # the map, and its scale
    (image,) = axes.get_images()
    assert image.get_array().tolist() == [list(a.values["cosine_of_means"]) for a in report.runs[0].attentions]
    low, high = image.get_clim()
    assert low == -high
    conventions = {value.name: value.convention for value in report.heads}
    assert conventions["heads.cosine_of_means"].startswith("cos(mean query, mean key), signed")
    assert all(conventions.values())


def test_drift_tells_rho_and_how_p_was_made(bert: Path) -> None:
    report = load_report(bert)
    found = report.runs[0].drift_correlation()[""]
    figure = report.plot("drift")
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text() == f"bert: ρ = {found.rho:+.2f}, p = {found.p:.2g}"
    assert "exact permutation" in figure.get_suptitle()


def test_no_such_figure(report: Report) -> None:
    with pytest.raises(ValueError, match=r"what: no figure 'mean_cosin'; there are drift, .*mean_cosine"):
        report.plot("mean_cosin")
    with pytest.raises(ValueError, match=r"site: no run has 'block.9'; there are embedding"):
        report.plot("spectrum", site="block.9")


def test_runs_of_one_name_are_told_apart(bert: Path) -> None:
    assert [run.name for run in load_report(bert, bert).runs] == ["bert (1)", "bert (2)"]
    with pytest.raises(ValueError, match="runs: expected at least one"):
        load_report()


def test_the_payload_is_the_runs(report: Report) -> None:
    plain = json.loads(json.dumps(payload(report.runs, report.metrics, report.heads), allow_nan=False))
    assert [run["name"] for run in plain["runs"]] == ["bert", "t5", "vectors"]
    assert [stack["stack"] for stack in plain["runs"][1]["stacks"]] == ["encoder.", "decoder."]
    for stack, run in (
        (stack, run) for run, told in zip(report.runs, plain["runs"], strict=True) for stack in told["stacks"]
    ):
        for told, site in zip(stack["sites"], run.stacks[stack["stack"]], strict=True):
            assert told["values"]["mean_cosine"] == pytest.approx(site.values["mean_cosine"], rel=1e-7)
            assert told["spectrum"][0][0] == 1
            # at most 160 of the shares of all eigenvalues, which add up to 1
            assert sum(share for _, share in told["spectrum"]) == pytest.approx(1, rel=1e-6)
    pairs = plain["runs"][2]["pairs"]
    widths = [b - a for a, b in zip(pairs["edges"], pairs["edges"][1:], strict=False)]
    assert sum(w * d for w, d in zip(widths, pairs["density"], strict=True)) == pytest.approx(1, rel=1e-6)
    labels = [metric["label"] for metric in plain["metrics"]]
    assert labels[0] == "Mean cosine"
    assert len(set(labels)) == len(labels)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")
        self.loads += [(name, value or "") for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


def test_the_page_is_complete_in_itself(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path = report.save_html(tmp_path / "out.html", title="a <b> & c")
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert all(value.startswith(("#", "data:")) for _, value in page.loads)
    assert "default-src 'none'" in text
    assert len(page.scripts) == 3
    assert json.loads(page.scripts[1]) == payload(report.runs, report.metrics, report.heads)
    assert "<title>a &lt;b&gt; &amp; c</title>" in text


def test_names_are_never_markup(bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    folder = tmp_path / "</script><img src=x onerror=alert(1)>"[9:]
    folder.mkdir()
    content = json.loads((bert / "scan.json").read_text())
    content["model"] = "</script><script>alert(1)</script>"
    (folder / "scan.json").write_text(json.dumps(content))
    page = _Page(load_report(folder).to_html())
    assert len(page.scripts) == 3
    assert content["model"] in [value for _, value in json.loads(page.scripts[1])["runs"][0]["about"]]


def test_without_plotly(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastaniso.report.html.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastaniso\[html\]'"):
        report.to_html()


def test_on_the_command_line(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly")
    from fastaniso import cli

    out = tmp_path / "out.html"
    monkeypatch.setattr(sys, "argv", ["fastaniso", "report", str(bert), str(bert), "--html", str(out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert (ended.value.code or 0, printed.out) == (0, "")
    assert re.search(r"wrote .*out.html \(\d\.\d MB\)", printed.err)
    assert "Anisotropy of bert (1), bert (2)" in out.read_text(encoding="utf-8")
    assert fastaniso.load_report(bert).runs[0].name == "bert"
