# SPDX-License-Identifier: Apache-2.0
"""The report's page in a browser, on a telephone and on a wall. The pictures are kept in build/test/tune. Skipped where
there is no Chromium."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from kvq.cli import main
from made_report import fill_file

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = Path(__file__).resolve().parents[2] / "build" / "test" / "tune"
WIDTHS = {400: 3000, 1600: 1800}
# What is wider than the window, but for parts that scroll by themselves, and text that is too small to be read.
PROBE = """
<script>
addEventListener("load", () => {
  const wide = [], small = [], width = document.documentElement.clientWidth;
  for (const each of document.body.querySelectorAll("*")) {
    const box = each.getBoundingClientRect();
    if (!each.closest(".wide") && box.width && box.right > width + 1) wide.push(each.tagName);
    if (each.tagName === "text" && each.textContent.trim() && box.height && box.height < 8.5)
      small.push(each.textContent + " " + box.height);
  }
  document.body.dataset.wide = wide.join(" ");
  document.body.dataset.small = small.join("; ");
  document.body.dataset.width = width;
  document.body.dataset.scroll = document.documentElement.scrollWidth;
});
</script></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")


def browse(tmp_path, width, *options):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--force-device-scale-factor=1", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{WIDTHS[width]}",
               *options]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def framed(tmp_path, width, page):
    """A window of Chromium is never narrower than 500 points; a frame is."""
    file = tmp_path / f"frame{width}.html"
    file.write_text(f'<body style="margin:0"><iframe src="{page.name}" style="border:0;width:{width}px;'
                    f'height:{WIDTHS[width]}px"></iframe>')  # fmt: skip
    return file


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    fill_file(folder / "tuning.db")
    arguments = ["--db", str(folder / "tuning.db"), "--bandwidth", "x86-64-v4=40", "--title", "Tuned kernels"]
    assert main(["tune", "report", str(folder / "report.html"), *arguments]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_leaves_the_window_and_all_text_can_be_read(page, tmp_path, width):
    probed = page.with_name(f"probed{width}.html")
    probed.write_text(page.read_text().replace("</body>", PROBE).replace("<details>", "<details open>"))
    outer = framed(page.parent, width, probed)
    outer.write_text(outer.read_text() + """<script>addEventListener("load", () => setTimeout(() => {
        const inner = document.querySelector("iframe").contentDocument.body.dataset;
        document.body.textContent = JSON.stringify(inner); }, 200))</script>""")
    found = browse(tmp_path, width, "--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom",
                   outer.as_uri())  # fmt: skip
    values = dict(re.findall(r'"(\w+)":"([^"]*)"', found))
    assert values.get("width") == str(width), found[-400:]
    assert values["wide"] == "" and values["small"] == "" and int(values["scroll"]) <= width, values


@pytest.mark.parametrize("width", WIDTHS)
def test_a_picture_is_kept(page, tmp_path, width):
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"report-{width}.png"
    picture.unlink(missing_ok=True)
    browse(tmp_path, width, f"--screenshot={picture}", framed(page.parent, width, page).as_uri())
    header = picture.read_bytes()[:24]
    assert header[:4] == b"\x89PNG" and int.from_bytes(header[16:20]) in (width, 500) and picture.stat().st_size > 20_000
