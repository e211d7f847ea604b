"""The report in a real browser: a Chromium that is installed, from the disk, without a network."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.evaluation import record as records
from spfem_bench.evaluation.verify import Verification
from spfem_bench.media import headers
from spfem_bench.reporting.leaderboard import Entry, build_leaderboard
from spfem_bench.reporting.report.build import build
from spfem_bench.reporting.report.charts import Curve, TimePlot, time_plot
from spfem_bench.stored import write_json
from tests import hostile
from tests.conftest import Outcome, _run
from tests.synthetic import by_hand, items, record

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A Chromium without a window."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium or Chrome: apt install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'spfem-bench[dev]'"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=["--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


class Opened:
    """A report in the browser, and what went wrong in it."""

    def __init__(self, chromium: Any, folder: Path, **options: Any) -> None:
        self.context = chromium.new_context(**options)
        self.page = self.context.new_page()
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        begun = time.perf_counter()
        self.page.goto((folder / "index.html").as_uri(), wait_until="load")
        if options.get("java_script_enabled", True):  # until it is drawn, not only loaded
            drawn = "() => new Promise(go => requestAnimationFrame(() => setTimeout(go)))"
            self.page.evaluate(drawn)
        self.seconds = time.perf_counter() - begun

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


class Anywhere:
    """Clips that are all at hand, as far as the page is concerned: what it weighs with players."""

    def find(self, *_: object) -> None:
        return None

    def copy(self, *_: object) -> str:
        return f"media/{'0' * 32}.mp4"

    heatmap = copy

    def sync(self, *_: object) -> TimePlot:
        curve = Curve(np.arange(100), np.linspace(7, 9, 100))
        return time_plot({"own": curve, "rival": curve}, np.linspace(0, 1, 280), 4.2, 25)


def write(folder: Path, of: list[dict[str, Any]], clips: Any = None) -> Path:
    for name, content in build(
        [records.parse_record(one) for one in of], items=2, clips=clips
    ).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_hostile_names_execute_nothing_and_fetch_nothing(chromium: Any, tmp_path: Path) -> None:
    with Opened(chromium, write(tmp_path / "r", hostile.records())) as at:
        page = at.page
        for details in page.locator("details").all():
            details.evaluate("d => { d.open = true }")
        for element in page.locator("h3, .strips").all()[::3]:
            element.scroll_into_view_if_needed()
            element.hover(force=True)
        page.wait_for_timeout(200)
        assert page.evaluate("window.pwned") is None
        assert at.dialogs == [] and at.errors == []
        assert all(url.startswith("file://") for url in at.requests) and len(at.requests) == 1
        assert page.locator("#theme").is_visible()  # our own script does run
        for name in hostile.SHOWN:
            assert page.get_by_text(name, exact=False).count() > 0
        # Nor does one that gets into the page after all.
        page.evaluate("""() => {
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.pwned=9'>");
            document.body.append(Object.assign(document.createElement("script"),
                { textContent: "window.pwned=9" }));
            document.body.append(Object.assign(document.createElement("img"),
                { src: "https://example.org/x.png" }));
        }""")
        page.wait_for_timeout(200)
        assert page.evaluate("window.pwned") is None
        assert len([e for e in at.errors if "Content Security Policy" in e]) >= 3


def test_a_hostile_leaderboard_executes_nothing_and_fetches_nothing(
    chromium: Any, tmp_path: Path
) -> None:
    entries = []
    for n, content in enumerate(hostile.records()):
        run = records.parse_record(content)
        found = Verification(run, (), {}, (hostile.SCRIPT, hostile.IMAGE))
        entries.append(Entry(tmp_path / f"{n}.json", str(n).encode(), found))
    (tmp_path / "index.html").write_bytes(build_leaderboard(entries)["index.html"])
    with Opened(chromium, tmp_path) as at:
        page = at.page
        for button in page.locator("th button").all():
            button.click()
        for element in page.locator("bdi, code, details").all()[:60]:
            element.hover(force=True)
        page.wait_for_timeout(200)
        assert page.evaluate("window.pwned") is None
        assert at.dialogs == [] and at.errors == []
        assert len(at.requests) == 1
        assert page.locator("a[href^='javascript']").count() == 0
        for name in (hostile.SCRIPT, hostile.IMAGE, hostile.TEMPLATE, "safe⟨U+202E⟩gnp.exe"):
            assert page.get_by_text(name, exact=False).count() > 0


def test_a_leaderboard_sorts_by_click_and_by_key(chromium: Any, tmp_path: Path) -> None:
    values = {"a": (0.3, 0.8), "b": (0.5, 0.2), "c": (0.5, 0.6), "source": (1.0, 1.0)}
    for name, pair in values.items():
        kind = "control" if name == "source" else "system"
        write_json(tmp_path / f"in/{name}.json", by_hand(name, [pair, pair], kind=kind))
    assert _run("leaderboard", tmp_path / "in", "-o", tmp_path / "out").code == 0
    with Opened(chromium, tmp_path / "out") as at:
        page = at.page

        def rows() -> list[str]:
            found = page.locator("table.board tbody :is(.place, th bdi)").all_inner_texts()
            return [place + name for place, name in zip(found[::2], found[1::2], strict=True)]

        def order(name: str) -> str | None:
            head = page.locator("table.board th", has_text=name).first
            return head.get_attribute("aria-sort")

        assert rows() == ["source", "1b", "1c", "3a"]  # by id-sim, the first column
        assert order("id-sim") == "descending"
        csim = page.get_by_role("button", name="CSIM")
        csim.click()  # the best first
        assert rows() == ["source", "1a", "2c", "3b"]
        assert order("CSIM") == "descending" and order("id-sim") is None
        csim.focus()
        page.keyboard.press("Enter")
        assert rows() == ["3b", "2c", "1a", "source"] and order("CSIM") == "ascending"
        page.get_by_role("button", name="Method").click()
        assert rows() == ["a", "b", "c", "source"]
        page.get_by_role("button", name="Copy").click()
        assert "chen2024asccl" in page.evaluate("getSelection().toString()")
        assert at.errors == [] and len(at.requests) == 1
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_ten_methods_on_252_clips_open_quickly(chromium: Any, tmp_path: Path) -> None:
    of = items(252)
    runs = [record(f"method-{n}", of=of, seed=n) for n in range(10)]
    folder = write(tmp_path / "r", runs, Anywhere())
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 20e6
    seconds = []  # the best of five: other work on this machine is not what is measured
    while min(seconds, default=2.0) >= 2 and len(seconds) < 5:
        with Opened(chromium, folder) as at:
            seconds.append(at.seconds)
    assert min(seconds) < 2, seconds
    with Opened(chromium, write(tmp_path / "r", runs)) as at:
        assert at.errors == []
        assert at.page.locator("table.sortable tbody tr").count() == 2520
        details = at.page.locator("details.items").first
        details.locator("summary").click()
        details.get_by_role("button", name="CSIM").click()
        shown = details.locator("tbody tr td:nth-child(4)").all_inner_texts()
        assert shown == sorted(shown) and len(shown) == 252
        # A point of a cloud says whose it is.
        chart = at.page.locator(".strips").first
        chart.scroll_into_view_if_needed()
        half = chart.locator(".cloud").first.evaluate(
            "p => { const b = p.getBoundingClientRect(); const c = p.getPointAtLength(0);"
            " const m = p.getScreenCTM(); return [c.x * m.a + m.e, c.y * m.d + m.f] }"
        )
        at.page.mouse.move(*half)
        assert at.page.locator("#tip").inner_text().startswith(of[0]["id"])


def test_it_is_to_be_read_without_scripts_and_by_keyboard(chromium: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "r", [record(), record("real", kind="control")])
    with Opened(chromium, folder, java_script_enabled=False) as at:
        assert at.page.get_by_role("row", name="model").first.is_visible()
        assert not at.page.locator("#theme").is_visible()
    with Opened(chromium, folder, viewport={"width": 390, "height": 800}) as at:
        page = at.page
        assert page.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        for role in ("main", "navigation", "banner", "contentinfo"):
            assert page.get_by_role(role).count() == 1
        assert page.get_by_role("img").count() >= 10

        def colours() -> tuple[str, str]:
            body = "getComputedStyle(document.body)"
            found = page.evaluate(f"[{body}.color, {body}.backgroundColor]")
            return found[0], found[1]

        light = colours()
        page.get_by_role("button", name="Theme").click()
        page.get_by_role("button", name="Theme").click()
        dark = colours()
        assert light != dark
        assert contrast(*light) > 7 and contrast(*dark) > 7
    with Opened(chromium, folder, color_scheme="dark") as at:
        assert at.page.evaluate("getComputedStyle(document.body).color") == dark[0]


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2 between two colours ``rgb(r, g, b)``."""

    def luminance(colour: str) -> float:
        parts = [int(n) / 255 for n in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


# ---- clips ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def puppets(
    tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, run_ffmpeg: Callable[..., None]
) -> Iterator[tuple[Path, Callable[..., Outcome]]]:
    """Two methods on one item: records, own clips, and the command line in their world."""
    top = tmp_path_factory.mktemp("report")
    (top / "cards/protocols").mkdir(parents=True)
    demo = (builtin_folder() / "protocols/demo-inter-id.toml").read_text()
    demo = demo.replace("demo-inter-id.csv", "few.csv").replace(
        'emotions = ["neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised"]',
        'emotions = ["angry"]',
    )
    (top / "cards/protocols/few.toml").write_text(demo)
    lines = (builtin_folder() / "protocols/demo-inter-id.csv").read_text().splitlines()
    wanted = [x for x in lines if x.startswith("P001_angry")]
    (top / "cards/protocols/few.csv").write_text("\n".join([lines[0], *wanted]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPFEM_BENCH_CARDS", str(top / "cards"))
        patch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
        patch.chdir(top)
        common = ("--protocol", "few", "--metrics", "csim,lse-d,tcc", "-q")
        assert _run("eval", "--method", "real", *common).code == 0
        (real,) = (top / "results/few").glob("real.*.json")
        (top / "own").mkdir()
        for item in records.load_run(real).items:
            shipped = dataset_card("puppets").path.with_suffix("")
            take = shipped / item.clips["real"].address
            run_ffmpeg(
                "-i",
                take,
                "-vf gblur=sigma=1 -c:v libx264 -crf 20 -c:a copy -strict -2",
                top / f"own/{item.id}.mp4",
            )
        assert _run("eval", "--method", "mine", "--videos", "own", *common).code == 0
    yield top, _run


@pytest.fixture
def in_puppets(
    puppets: tuple[Path, Callable[..., Outcome]], demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Callable[..., Outcome]]:
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(puppets[0] / "cards"))
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
    monkeypatch.chdir(puppets[0])
    return puppets


def test_clips_play_in_step(chromium: Any, in_puppets: tuple[Path, Callable[..., Outcome]]) -> None:
    top, bench = in_puppets
    done = bench("report", "results", "--videos", "mine=own", "--items", "1", "-q")
    assert done.code == 0 and done.out.strip() == "report/index.html"
    names = {p.name for p in (top / "report/media").iterdir()}
    assert all(len(n) == 36 for n in names) and len(names) == 5
    for clip in (top / "report/media").glob("*.mp4"):
        assert headers.probe(clip).has_audio
    # Once more: nothing is encoded again, and every byte is the same.
    before = {p: p.read_bytes() for p in (top / "report").rglob("*.*")}
    assert bench("report", "results", "--videos", "mine=own", "--items", "1", "-q").code == 0
    assert {p: p.read_bytes() for p in (top / "report").rglob("*.*")} == before
    again = bench("report", "results", "--videos", "mine=own", "--items", "1", "-q", "-o", "b")
    assert again.code == 0
    assert {p.name: p.read_bytes() for p in (top / "b").rglob("*.*")} == {
        p.name: content for p, content in before.items()
    }

    with Opened(chromium, top / "report", java_script_enabled=False) as at:
        assert at.page.locator("video[controls]").first.is_visible()
    with Opened(chromium, top / "report") as at:
        page = at.page
        metric = page.locator("details.metric", has=page.locator("h5", has_text="LSE-D")).first
        metric.locator("summary").first.click()
        entry = metric.locator(".entry").first
        entry.scroll_into_view_if_needed()
        videos = entry.locator("video")
        assert videos.count() == 4
        entry.locator(".bar").wait_for()
        times = "vs => vs.map(v => v.currentTime)"
        entry.get_by_role("button", name="Play").click()
        # All run, and come within one and a half frames of each other.
        page.wait_for_function(
            """e => {
                const vs = [...e.querySelectorAll("video")], ts = vs.map(v => v.currentTime);
                return vs.every(v => !v.paused && v.currentTime > 0.3)
                    && Math.max(...ts) - Math.min(...ts) < 0.06;
            }""",
            arg=entry.element_handle(),
        )
        assert videos.evaluate_all("vs => vs.map(v => v.muted)") == [True, True, False, True]
        entry.get_by_role("button", name="Pause").click()
        entry.get_by_role("button", name="One frame on").click()
        stopped = videos.evaluate_all(times)
        assert max(stopped) - min(stopped) < 1e-6
        page.keyboard.press(".")
        further = videos.evaluate_all(times)
        assert further[0] - stopped[0] == pytest.approx(0.04, abs=1e-6)
        playhead = entry.locator(".playhead").get_attribute("d")
        slider = entry.get_by_role("slider")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert videos.evaluate_all(times) == pytest.approx(stopped)
        assert entry.locator(".playhead").get_attribute("d") != playhead
        assert entry.locator(".chart path.curve.own").count() == 2
        assert entry.locator(".chart path.wave").get_attribute("d")
        heat = page.locator("img").first
        heat.evaluate("i => { i.loading = 'eager'; i.closest('details').open = true }")
        page.wait_for_function("i => i.complete", arg=heat.element_handle())
        assert heat.evaluate("i => i.naturalWidth") > 400
        assert at.errors == [] and all(u.startswith("file://") for u in at.requests)


def test_curves_of_the_lips_move_with_the_players(
    chromium: Any, in_puppets: tuple[Path, Callable[..., Outcome]]
) -> None:
    top, bench = in_puppets
    common = ("--protocol", "few", "--metrics", "lip-corr", "--results", "lips", "-q")
    assert bench("eval", "--method", "mine", "--videos", "own", *common).code == 0
    options = ("--videos", "mine=own", "--items", "1", "-q", "-o", "curves")
    assert bench("report", "lips", *options).code == 0
    with Opened(chromium, top / "curves") as at:
        entry = at.page.locator(".entry", has=at.page.locator("figure.over")).first
        entry.scroll_into_view_if_needed()
        entry.locator(".bar").wait_for()
        playhead = entry.locator(".over .playhead")
        before = playhead.get_attribute("d")
        entry.get_by_role("button", name="One frame on").click()
        assert playhead.get_attribute("d") != before
        for kind in ("own", "source"):  # a frame each: 25 and more count, of speech
            path = entry.locator(f".over .chart path.curve.{kind}").get_attribute("d")
            assert path is not None and path.count("L") > 24
        strokes = entry.locator(".over .chart path.curve").evaluate_all(
            "ps => ps.map(p => getComputedStyle(p).stroke)"
        )
        assert len(set(strokes)) == len(strokes) >= 2
        assert at.errors == [] and all(u.startswith("file://") for u in at.requests)


def test_what_is_not_at_hand_is_said(in_puppets: tuple[Path, Callable[..., Outcome]]) -> None:
    top, bench = in_puppets
    assert bench("report", "results", "--items", "1", "-q", "-o", "lacking").code == 0
    page = (top / "lacking/index.html").read_text()
    assert (
        "Video, output: not available. The output is in no data set. Add --videos mine=DIR" in page
    )
    assert "Distance over time: not available." in page and "Heat-map: not available." in page
    assert page.count("<video") > 0  # the source's and the reference's are there
    shutil.copytree(top / "own", top / "other")
    for clip in (top / "other").iterdir():
        clip.write_bytes(b"another")
    done = bench(
        "report", "results", "--videos", "mine=other", "--items", "1", "-q", "-o", "other-r"
    )
    assert done.code == 0
    page = (top / "other-r/index.html").read_text()
    assert "The output clip has changed since the run" in page


def test_only_the_clips_show_that_fad_was_edited_with_all_that_follows(
    in_puppets: tuple[Path, Callable[..., Outcome]],
) -> None:
    _, bench = in_puppets
    common = ("--protocol", "few", "--metrics", "fad", "--results", "fads", "-q")
    assert bench("eval", "--method", "mine", "--videos", "own", *common).code == 0
    (path,) = Path("fads/few").glob("mine.*.json")
    again = ("verify", path, "--clips", "--videos", "mine=own", "-q")
    done = bench(*again)
    assert done.code == 0 and "Within tolerance: all 2 numbers of mine on few" in done.out
    better = records.load_run(path).plain()
    for score in better["scores"]:
        for key in ("value", "low", "high"):
            score[key] = None if score[key] is None else score[key] - 0.01
    write_json(path, better)
    assert bench("verify", path).code == 0
    done = bench(*again)
    assert done.code == 1 and "Differs: 2 of 2 numbers of mine on few" in done.out
    assert json.loads(bench(*again, "--json").out)[0]["clips"]["holds"] is False
    without = bench("verify", path, "--clips", "-q")  # its outputs are not said
    assert without.code == 1 and "To score your own clips, add --videos DIR" in without.out
