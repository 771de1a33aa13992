"""The page in a real browser: what it asks for, what it logs, how wide it is, what keys do."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pycaffe_prune.experiments.result import ExperimentResult, read_result
from pycaffe_prune.reports.outputs.html import points_csv, render_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

# Headless windows are at least 500 pixels wide: a frame gives the page a phone's width
FRAME = """<!DOCTYPE html><link rel="icon" href="data:,">
<iframe style="width:390px;height:844px;border:0" src="/report.html"></iframe><pre id="seen"></pre>
<script>
addEventListener("load", () => {
  const view = frames[0], page = view.document, root = page.documentElement;
  const figure = page.querySelector("figure"), svg = figure.querySelector(".chart");
  const readout = figure.querySelector(".readout");
  const key = (name) => page.activeElement.dispatchEvent(
    new view.KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const press = (name) => figure.querySelector(`[data-zoom="${name}"]`).click();
  const state = () => ({
    ticks: [...svg.querySelectorAll(".ticks text")].map((text) => text.textContent),
    out: svg.querySelectorAll(".point.out").length,
    places: [...svg.querySelectorAll(".point")].map((point) => point.getAttribute("transform")),
    stops: svg.querySelectorAll('.point[tabindex="0"]').length,
  });
  const seen = { all: svg.querySelectorAll(".point").length, started: state() };
  page.querySelectorAll("details").forEach((element) => { element.open = true; });
  svg.querySelector('.point[tabindex="0"]').focus();
  seen.first = readout.textContent;
  key("ArrowRight");
  seen.second = readout.textContent;
  key("ArrowLeft");
  seen.third = readout.textContent;
  key("ArrowRight");
  key("+");
  seen.closer = state();
  seen.closest = page.activeElement.getAttribute("aria-label");
  key("0");
  seen.again = state();
  press("out");
  press("all");
  seen.whole = state();
  press("start");
  svg.setPointerCapture = () => {};  // a made-up pointer cannot be captured
  const place = svg.getBoundingClientRect();
  const drag = (type, x, y) => svg.dispatchEvent(new view.PointerEvent(type, {
    pointerType: "mouse",
    clientX: place.left + x * place.width,
    clientY: place.top + y * place.height,
  }));
  drag("pointerdown", 0.6, 0.3);
  drag("pointermove", 0.8, 0.6);
  seen.box = !svg.querySelector(".box").hasAttribute("hidden");
  drag("pointerup", 0.8, 0.6);
  seen.boxed = state();
  const files = [];
  view.URL.createObjectURL = (blob) => { files.push(blob); return "data:,"; };
  seen.names = [];
  view.HTMLAnchorElement.prototype.click = function () { seen.names.push(this.download); };
  page.querySelectorAll(".downloads button").forEach((button) => button.click());
  Promise.all(files.map((blob) => blob.text())).then((texts) => {
    document.getElementById("seen").textContent = JSON.stringify({
      ...seen, texts, width: root.clientWidth, needed: root.scrollWidth,
      small: [...page.querySelectorAll("button")].filter((b) => b.offsetHeight < 24).length,
      ink: view.getComputedStyle(page.body).color,
      resources: view.performance.getEntriesByType("resource").map((entry) => entry.name),
    });
  });
});
</script>"""


@dataclass
class _Site:
    pages: dict[str, str]
    asked: list[str] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def site() -> Iterator[_Site]:
    """Pages on 127.0.0.1, and what was asked for."""
    found = _Site({"/": FRAME})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            body = found.pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def _visit(site: _Site, profile: Path, *options: str) -> tuple[dict[str, Any], list[str]]:
    """What the frame saw of the page, and every line of the browser's console."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={profile}", *options),
            *("--virtual-time-budget=10000", "--dump-dom", f"http://127.0.0.1:{site.port}/"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.S)
    assert seen is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(unescape(seen[1])), console


RUN = Path(__file__).parents[2] / "results" / "lenet-300-100" / "result.json"


@pytest.fixture(scope="module")
def result() -> ExperimentResult:
    """A real run."""
    return read_result(RUN)


def test_the_page_in_a_phones_width(result: ExperimentResult, site: _Site, tmp_path: Path) -> None:
    site.pages["/report.html"] = render_html([result, result])
    seen, console = _visit(site, tmp_path)
    assert console == []
    assert sorted(site.asked) == ["/", "/report.html"]
    assert seen["resources"] == []
    assert 300 < seen["width"] <= 390
    assert seen["needed"] == seen["width"]
    assert seen["small"] == 0
    _read_by_keys(seen)
    _zoomed(seen)
    _downloaded(seen, result)


def _read_by_keys(seen: dict[str, Any]) -> None:
    assert seen["first"] == seen["third"] == "baseline: accuracy 97.83 %"
    assert "unit pruning, ip1 60, ip2 10: reduction 82.07 %, accuracy 97.33 %" in seen["second"]


def _zoomed(seen: dict[str, Any]) -> None:
    started, closer, whole, boxed = (seen[name] for name in ("started", "closer", "whole", "boxed"))
    assert started["ticks"][:3] == ["80", "82", "84"]
    assert all(seen[name]["stops"] == 1 for name in ("started", "closer", "whole", "boxed"))
    assert closer["out"] > started["out"] > 0
    assert closer["ticks"] != started["ticks"]
    assert seen["closest"] in seen["second"]  # what is zoomed in on stays, with the focus
    assert seen["again"]["ticks"] == started["ticks"]
    assert [_numbers(p) for p in seen["again"]["places"]] == pytest.approx(
        [_numbers(place) for place in started["places"]], abs=0.02
    )
    assert whole["out"] == 0
    assert seen["box"]
    assert 0 < seen["all"] - boxed["out"] < seen["all"] - started["out"]


def _numbers(transform: str) -> complex:
    x, y = map(float, re.findall(r"[-.\d]+", transform))
    return complex(x, y)


def _downloaded(seen: dict[str, Any], result: ExperimentResult) -> None:
    name = "lenet-300-100-paper-10k"
    assert seen["names"] == 2 * [f"{name}.json", f"{name}.csv"]
    assert json.loads(seen["texts"][0]) == result.model_dump(mode="json")
    assert seen["texts"][1] == points_csv(result)


def test_it_follows_the_readers_choice_of_light_and_dark(
    result: ExperimentResult, site: _Site, tmp_path: Path
) -> None:
    site.pages["/report.html"] = render_html([result])
    ink = [
        _visit(site, tmp_path / name, f"--blink-settings=preferredColorScheme={scheme}")[0]["ink"]
        for name, scheme in (("dark", 0), ("light", 1))
    ]
    assert ink == ["rgb(231, 233, 236)", "rgb(28, 30, 33)"]


def test_no_script_but_the_pages_own_runs_and_the_test_sees_faults_requests_and_overflow(
    result: ExperimentResult, site: _Site, tmp_path: Path
) -> None:
    faults = (
        '<img src="/outside.png"><div style="width:900px">wide</div>'
        '<script>console.error("fault")</script></body>'
    )
    site.pages["/report.html"] = render_html([result]).replace("</body>", faults)
    seen, console = _visit(site, tmp_path)
    assert any("script-src" in line for line in console)  # refused: its checksum is another one
    assert not any('"fault"' in line for line in console)
    assert any("outside.png" in line for line in console)  # refused by the page's own policy
    assert "/outside.png" not in site.asked
    assert seen["needed"] > seen["width"]
