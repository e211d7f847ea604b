"""The pages build without a dead link, fetch nothing, and what they tell to type exists."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

from spfem_bench.cli.main import main
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.errors import UnknownNameError
from spfem_bench.reporting import pages
from tests.command_lines import Line, code_blocks, commands_of, parse
from tests.conftest import ROOT

WRITTEN = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in WRITTEN}
TEXTS |= pages.protocols() | pages.registry()


def build_site(root: Path, site: Path) -> bool:
    """Build the site and say whether that went without a warning."""
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'spfem-bench[dev]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    try:
        build(load_config(str(root / "mkdocs.yml"), site_dir=str(site)))
    except Abort:
        return False
    return True


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the site is made of, to be spoilt."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert build_site(ROOT, folder)
    return folder


class Fetched(HTMLParser):
    """Collects what a browser loads for a page without being asked: no links to click on."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "link" and named.get("rel") == "canonical":
            return
        address = named.get("href") if tag == "link" else named.get("src")
        if address:
            self.addresses.append(address)


def test_the_site_builds_strictly_with_a_page_for_every_metric_and_protocol(site: Path) -> None:
    for name in names(Kind.METRIC):
        assert (site / f"metrics/{name}.html").is_file()
    for name in names(Kind.PROTOCOL):
        assert f"<code>{name}</code>" in (site / f"protocols/{name}.html").read_text()
    for name in pages.registry():
        assert (site / f"registry/{name}.html").is_file()
    assert (site / "leaderboard/index.html").is_file()
    assert 'href="leaderboard/index.html"' in (site / "leaderboard.html").read_text()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    # 404.html is for servers: its addresses begin at their root.
    found = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(found) >= 30
    for page in found:
        parser = Fetched()
        parser.feed(page.read_text())
        assert parser.addresses or page.parent.name == "leaderboard"  # all is inside that page
        for address in parser.addresses:
            file = (page.parent / address.split("?")[0]).resolve()
            assert address.startswith("data:") or file.is_file(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"url\(([^)]*)\)|@import ([^;]*)", sheet.read_text()):
            assert not re.match(r"\W*(https?:)?//", "".join(address)), sheet


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("[x](demo.md#what-is-in-it)", True),
        ("[x](nowhere.md)", False),
        ("[x](demo.md#nowhere)", False),
        ("[x](/demo.md)", False),
        ("[x](../README.md)", False),
    ],
)
def test_a_dead_link_stops_the_build(line: str, good: bool, copy: Path) -> None:
    with (copy / "docs/index.md").open("a") as page:
        page.write(f"\n{line}\n")
    assert build_site(copy, copy / "site") == good


def test_a_page_outside_the_navigation_stops_the_build(copy: Path) -> None:
    (copy / "docs/forgotten.md").write_text("# Forgotten\n")
    assert not build_site(copy, copy / "site")


@pytest.mark.parametrize("name", TEXTS)
def test_what_the_texts_tell_to_type_exists(name: str) -> None:
    text = TEXTS[name]
    for block in code_blocks(text):
        for command in commands_of(block):
            line = parse(command)  # raises what click would say
            assert unknown(line) == [], command
    for command in re.findall(r"`(spfem-bench [^`]+)`", text):
        assert strange_words(" ".join(command.split())) == [], command


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_the_texts_name_exist(name: str) -> None:
    folders = "spfem_bench|tests|metrics|protocols|reference_results|benchmarks|docs"
    for path in re.findall(rf"`((?:{folders})/[a-z0-9_./*-]+)`", TEXTS[name]):
        assert list(ROOT.glob(path.rstrip("/"))), path


def unknown(line: Line) -> list[str]:
    """Return the names that a command line gives and no card has; variables may be anything."""
    kinds = {
        "protocol": Kind.PROTOCOL,
        "protocols": Kind.PROTOCOL,
        "profile": Kind.PROFILE,
        "metrics": Kind.METRIC,
        "controls": Kind.METHOD,
    }
    found = []
    for option, kind in kinds.items():
        given = line.values.get(option) or ()
        for each in (given,) if isinstance(given, str) else given:
            own = "$" in each or each.endswith(".toml")  # a card of the reader's own
            found += [n for n in each.split(",") if not own and n.casefold() not in names(kind)]
    own = str(line.values.get("protocols")).count("results/")  # a list that eval made
    outputs = bool(line.values.get("videos") or line.values.get("generated") or own)
    for method in line.values.get("methods") or ():
        if not (outputs or "$" in method or method == "controls"):
            try:
                method_card(method)
            except UnknownNameError:
                found.append(method)
    return found


def strange_words(command: str) -> list[str]:
    """Return the commands and options in running text that do not exist."""
    here: click.Command = main
    for word in command.split()[1:]:
        if isinstance(here, click.Group) and re.fullmatch(r"[a-z]+", word):
            found = here.get_command(click.Context(here), word)
            if found is None:
                return [word]
            here = found
    options = {o for p in here.params for o in p.opts} | {"--help"}
    return [w for w in re.findall(r"(?<!\S)--?[a-z][a-z-]*", command) if w not in options]


def test_a_command_line_that_cannot_be_typed_is_found() -> None:
    assert strange_words("spfem-bench eval --methods x") == ["--methods"]
    assert strange_words("spfem-bench data fatch x") == ["fatch"]
    assert commands_of("for m in a; do spfem-bench eval \\\n  --method $m; done") == [
        "spfem-bench eval --method $m"
    ]
    assert unknown(parse("spfem-bench eval --method nedd --metrics fad,csi")) == ["csi", "nedd"]
    for line in ("eval --method a --worker 0", "evaluate", "table --format word x", "data"):
        with pytest.raises(click.UsageError):
            parse(f"spfem-bench {line}")


def test_a_protocols_page_says_what_its_list_holds() -> None:
    page = pages.protocols()["stccl-page-ned"]
    # Counted by hand in protocols/stccl-page-ned.csv.
    for row in (
        "| Items | 13 |",
        "| Emotions | neutral 1, angry 2, disgusted 3, happy 3, sad 4 |",
        "| Speakers | M003 1, M012 4, M030 2, W015 6 |",
        "| Real clips, for FAD | the source clip |",
    ):
        assert row in page.splitlines()
    assert (
        "| Real clips, for FAD | the reference clip |" in pages.protocols()["asccl-repo-inter-id"]
    )


def test_what_a_card_says_is_not_taken_for_markup(site: Path) -> None:
    page = (site / "protocols/stccl-page-ned.html").read_text()
    assert "&lt;speaker&gt;_source_&lt;target emotion&gt;_&lt;clip&gt;" in page


def test_the_readmes_first_screen_has_the_two_commands_alone() -> None:
    first = code_blocks((ROOT / "README.md").read_text())[0]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()] == [
        "make eval",
        "make test",
    ]


def test_the_readmes_downloads_have_the_sizes_on_the_cards() -> None:
    text = (ROOT / "README.md").read_text()
    light = profile_card("light")
    size = sum(file.bytes or 0 for role in light.roles for file in light.network(role).files)
    assert f"Small networks for real faces take {size / 1e6:.0f} MB" in text
    rows = (ROOT / "protocols/datasets/stccl-page.csv").read_text().splitlines()[1:]
    size = sum(int(row.rpartition(",")[2]) for row in rows)
    assert f"the {len(rows)} of STCCL's page take {size / 1e6:.0f} MB" in text
