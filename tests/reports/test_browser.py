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

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.html import render_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

# Headless windows are at least 500 pixels wide: a frame gives the page a phone's width
FRAME = """<!DOCTYPE html><link rel="icon" href="data:,">
<iframe style="width:375px;height:700px;border:0" src="/report.html"></iframe><pre id="seen"></pre>
<script>
addEventListener("load", () => {
  const page = frames[0].document, root = page.documentElement;
  const readout = page.querySelector(".readout");
  const key = (name) => page.activeElement.dispatchEvent(
    new frames[0].KeyboardEvent("keydown", { key: name, bubbles: true }));
  page.querySelector('.point[tabindex="0"]').focus();
  const first = readout.textContent;
  key("ArrowRight");
  const second = readout.textContent;
  key("ArrowLeft");
  let saved = null, name = null;
  frames[0].URL.createObjectURL = (blob) => { saved = blob; return "data:,"; };
  frames[0].HTMLAnchorElement.prototype.click = function () { name = this.download; };
  page.querySelectorAll("details").forEach((element) => { element.open = true; });
  page.querySelector("#download button").click();
  saved.text().then((text) => {
    document.getElementById("seen").textContent = JSON.stringify({
      width: root.clientWidth, needed: root.scrollWidth, first, second,
      third: readout.textContent, name, saved: JSON.parse(text),
      stops: page.querySelector("figure").querySelectorAll('.point[tabindex="0"]').length,
      resources: frames[0].performance.getEntriesByType("resource").map((entry) => entry.name),
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


def _visit(site: _Site, profile: Path) -> tuple[dict[str, Any], list[str]]:
    """What the frame saw of the page, and every line of the browser's console."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={profile}"),
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


def test_the_page_in_a_phones_width(typical: ExperimentResult, site: _Site, tmp_path: Path) -> None:
    site.pages["/report.html"] = render_html(typical)
    seen, console = _visit(site, tmp_path)
    assert console == []
    assert sorted(site.asked) == ["/", "/report.html"]
    assert seen["resources"] == []
    assert 300 < seen["width"] <= 375
    assert seen["needed"] == seen["width"]
    assert seen["stops"] == 1
    assert "baseline: accuracy 97.90 %" in seen["first"]
    assert "unit pruning, ip1 60, ip2 10: reduction 82.07 %, accuracy 96.10 %" in seen["second"]
    assert seen["third"] == seen["first"]
    assert seen["name"] == "result.json"
    assert seen["saved"] == json.loads(typical.model_dump_json())


def test_the_test_sees_errors_requests_and_overflow(
    typical: ExperimentResult, site: _Site, tmp_path: Path
) -> None:
    faults = (
        '<img src="/outside.png"><div style="width:900px">wide</div>'
        '<script>console.error("fault")</script></body>'
    )
    site.pages["/report.html"] = render_html(typical).replace("</body>", faults)
    seen, console = _visit(site, tmp_path)
    assert any("fault" in line for line in console)
    assert any("outside.png" in line for line in console)  # refused by the page's own policy
    assert "/outside.png" not in site.asked
    assert seen["needed"] > seen["width"]
