"""Tables in every format and layout, beside files that were read by eye, and through TeX."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.definitions.published import printed_table
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.reporting.grids import latex_escape
from spfem_bench.reporting.table_layouts import TableLayout, TableStyle, _letter, render_table
from spfem_bench.reporting.tables import make_printed_table, make_table
from tests.conftest import ROOT
from tests.reporting.test_tables import NED, VD, content, record

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED = ROOT / "reference_results/published"
HOSTILE = "a_b%$#&~^\\{}*[x](y)|`<script>alert(1)</script>\n\u202e\u4e2d"
CM = {("fad", "sad"): 4.25, ("fad", "avg"): 5.0, ("csim", "sad"): 0.8, ("csim", "avg"): 0.75}


def small() -> list[RunRecord]:
    """Three methods and a control, two protocols, one method partial on the second."""
    inter: Mapping[str, Any] = {"protocol": "q", "setting": "inter-id", "sign": "t"}
    return [
        record("ned", "NED", NED, published=True),
        record("vd", "NED + VD", VD),
        record("cm", "NED + CM", CM),
        record("source", "source", {("fad", "avg"): 0.5, ("csim", "avg"): 0.9}, kind="control"),
        record("ned", "NED", {("fad", "avg"): 2.0, ("csim", "avg"): 0.9}, **inter),
        record("vd", "NED + VD", {("fad", "avg"): 1.0, ("csim", "avg"): 0.95}, **inter),
    ]


@pytest.mark.parametrize("layout", ["asccl", "stccl"])
@pytest.mark.parametrize(
    ("style", "ending"),
    [
        ("text", "txt"),
        ("markdown", "md"),
        ("csv", "csv"),
        ("csv-wide", "wide.csv"),
        ("latex", "tex"),
        ("html", "html"),
    ],
)
def test_tables_are_as_read_by_eye(style: TableStyle, ending: str, layout: TableLayout) -> None:
    intervals = layout == "stccl"
    text = render_table(make_table(small()), style, layout=layout, intervals=intervals)
    assert text == render_table(make_table(small()), style, layout=layout, intervals=intervals)
    assert text == (GOLDEN / f"{layout}.{ending}").read_text(encoding="utf-8")


def test_the_best_is_bold_and_the_second_best_of_three_underlined() -> None:
    # FAD, lower is better: 4.0, 4.5, 4.25; averages 5.0, 3.0, 5.0. CSIM, higher: 0.7, 0.8, 0.8.
    table = make_table([record("ned", "NED", NED), record("vd", "VD", VD), record("cm", "CM", CM)])
    block = table.rows[0][0]

    def ranks(emotion: str, metric: str) -> dict[str, int]:
        return {c.method: r for c, r in table.ranks(block, emotion, metric).items()}

    assert ranks("sad", "fad") == {"ned": 1, "cm": 2}
    assert ranks("avg", "fad") == {"vd": 1, "ned": 2, "cm": 2}
    assert ranks("sad", "csim") == {"vd": 1, "cm": 1, "ned": 2}
    two = make_table([record("ned", "NED", NED), record("vd", "VD", VD)])
    assert {c.method: r for c, r in two.ranks(block, "sad", "fad").items()} == {"ned": 1}


def test_one_signature_more_and_nothing_is_marked() -> None:
    other = record("cm", "CM", CM, sign="another network")
    table = make_table([record("ned", "NED", NED), record("vd", "VD", VD), other])
    text = render_table(table, "latex")
    assert "textbf" not in text and "underline" not in text
    assert r"FAD$\downarrow$\textsuperscript{a}" in text  # which signature a column has
    assert r"FAD$\downarrow$\textsuperscript{c}" in text


# ---- the papers' tables --------------------------------------------------------------------


@pytest.mark.parametrize("paper", ["asccl", "stccl"])
@pytest.mark.parametrize("dataset", ["mead", "ravdess"])
@pytest.mark.parametrize("layout", ["asccl", "stccl"])
def test_published_tables_come_out_digit_by_digit(
    paper: str, dataset: str, layout: TableLayout
) -> None:
    table = make_printed_table([printed_table(f"{paper}-{dataset}")])
    text = render_table(table, "csv-wide", layout=layout)
    found = set()
    for line in csv.DictReader(io.StringIO(text)):
        for head, value in line.items():
            if head in ("setting", "emotion", "metric", "method"):
                continue
            if layout == "asccl":
                method, metric = head.split(" ")
                found.add((line["setting"], method, line["emotion"], metric, value))
            else:
                found.add((line["setting"], line["method"], head, line["metric"], value))
    rows = csv.DictReader((PUBLISHED / f"{paper}-{dataset}.csv").open())
    names = ("setting", "method", "emotion", "metric", "value")
    assert found == {tuple(row[n] for n in names) for row in rows}
    assert len(found) == {"asccl": 192, "stccl": 288}[paper]


def test_published_tables_have_the_papers_lines() -> None:
    # The first and the last line of ASCCL's table 1, as its text prints them.
    lines = [" ".join(line.split()) for line in run("asccl-mead", "--format", "text").splitlines()]
    assert lines[1] == " ".join(["FAD↓ LSE-D↓ CSIM↑"] * 4)
    assert lines[3] == (
        "Inter-ID Neutral 7.114 9.760 0.779 7.158 9.382 0.781 0.906 9.264 0.883 0.891 9.113 0.911"
    )
    assert lines[18] == (
        "Avg. 9.540 11.238 0.688 9.480 10.375 0.726 4.448 9.906 0.773 4.264 9.238 0.791"
    )
    # STCCL's table 2 prints two cells with two decimals.
    text = run("stccl-ravdess", "--format", "text")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "Setting Metric Method Neutral Angry Disgusted Fear Happy Sad Surprised Avg."
    assert lines[2].startswith("Inter-ID FAD↓ ICface 9.816 ")
    assert lines[5] == "NED 2.041 3.288 4.144 2.635 3.714 2.595 2.98 3.057"


# ---- LaTeX ---------------------------------------------------------------------------------


def tables_to_compile() -> Iterator[tuple[str, str]]:
    hostile = [record("ned", HOSTILE, NED), record("vd", "VD & co", VD), record("cm", "CM", CM)]
    for layout in ("asccl", "stccl"):
        for name, records in (("small", small()), ("hostile", hostile)):
            table = make_table(records)
            yield (
                f"{name}-{layout}",
                render_table(
                    table,
                    "latex",
                    layout=layout,
                    intervals=True,
                    standalone=True,  # type: ignore[arg-type]
                ),
            )
    for name in ("asccl-ravdess", "stccl-mead", "asccl-ablations"):
        yield (
            name,
            render_table(
                make_printed_table([printed_table(name)]), "latex", layout="stccl", standalone=True
            ),
        )


COMPILED = dict(tables_to_compile())


def check_latex(text: str) -> None:
    """Refuse what TeX would: groups and environments that do not match, lines of other widths."""
    depth, environments = 0, []
    for line in text.splitlines():
        assert line.isprintable()
        code = re.sub(r"(?<!\\)((?:\\\\)*)%.*", r"\1", line)
        for sign in re.findall(r"\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\.|[{}]", code):
            if sign.startswith(r"\begin"):
                environments.append(sign[7:-1])
            elif re.match(r"\\end\{", sign):
                assert environments.pop() == sign[5:-1]
            elif sign in "{}":
                depth += {"{": 1, "}": -1}[sign]
                assert depth >= 0, line
    assert depth == 0 and environments == []
    found = re.search(r"\\begin\{tabular\}\{([^\n]*)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert found is not None
    assert re.fullmatch(r"l+r+", re.sub(r"@\{\\hspace\{12pt\}\}", "", found[1]))
    columns = len(re.sub(r"@\{\\hspace\{12pt\}\}", "", found[1]))
    rows = [line for line in found[2].splitlines() if line.endswith(r"\\")]
    for row in rows:
        spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        assert len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) == columns, row
    for start, end in re.findall(r"\\cmidrule\(\w+\)\{(\d+)-(\d+)\}", text):
        assert 1 <= int(start) <= int(end) <= columns
    assert len(rows) >= 2


@pytest.mark.parametrize("name", COMPILED)
def test_latex_is_whole(name: str) -> None:
    check_latex(COMPILED[name])


@pytest.mark.parametrize(
    "spoil", [("}", ""), (r"\end{tabular}", ""), (" & ", " & & "), (r"\_", "{_")]
)
def test_broken_latex_is_found(spoil: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        check_latex(COMPILED["hostile-asccl"].replace(*spoil, 1))


@pytest.mark.parametrize("name", COMPILED)
def test_latex_compiles_with_a_tex_engine(name: str, tmp_path: Path) -> None:
    engines = {
        "pdflatex": ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"],
        "tectonic": ["--only-cached"],
    }
    engine = next((e for e in engines if shutil.which(e)), None)
    if engine is None:
        pytest.skip("no TeX engine here (pdflatex or tectonic)")
    (tmp_path / "table.tex").write_text(COMPILED[name], encoding="utf-8")
    done = subprocess.run(
        [engine, *engines[engine], "table.tex"], cwd=tmp_path, capture_output=True, timeout=120
    )
    log = done.stdout.decode(errors="replace")
    if re.search(r"\.sty['`] not found", log + done.stderr.decode(errors="replace")):
        pytest.skip("the TeX engine lacks booktabs, graphicx, geometry or lmodern")
    assert done.returncode == 0, log[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 10_000
    assert "Overfull" not in log


def test_letters_of_signatures() -> None:
    assert [_letter(n) for n in (0, 25, 26)] == ["a", "z", "aa"]


def test_every_ascii_sign_is_escaped() -> None:
    for sign in map(chr, range(32, 127)):
        text = latex_escape(sign)
        if sign in r"\{}$&%#_^~":
            assert text.startswith("\\") and text != sign
    assert latex_escape("\n\t\x1b") == "   "


# ---- hostile names elsewhere ---------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_no_name_becomes_markup() -> None:
    table = make_table([record("ned", HOSTILE, NED, sign="<b>`|"), record("vd", "VD", VD)])
    parser = Tags()
    parser.feed(render_table(table, "html"))
    assert parser.seen <= {
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "b",
        "u",
        "sup",
        "ul",
        "li",
        "code",
    }
    assert parser.attributes <= {"scope", "rowspan", "colspan"}
    text = render_table(table, "markdown")
    assert "<script" not in text.replace(r"\<", "") and r"](" not in text.replace(r"\](", "")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "\x1b" not in render_table(make_table([record("x", "\x1b[31m", NED)]), "text")
    rows = list(csv.reader(io.StringIO(render_table(table, "csv-wide"))))
    assert len({len(row) for row in rows}) == 1


# ---- what is refused -----------------------------------------------------------------------


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["table", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_bad_records_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="no run record to print"):
        make_table([])
    with pytest.raises(CardError, match=r"no number to print: 'ned' on p: no clips"):
        render_table(make_table([record("ned", "NED", {("fad", "avg"): None})]), "text")
    with pytest.raises(CardError, match="no number to print: 'ned' on p: it has no scores"):
        render_table(make_table([record("ned", "NED", {})]), "text")
    for value in (float("nan"), float("inf")):
        with pytest.raises(CardError, match=r"'scores\.0\.value': Input should be a finite number"):
            make_table([record("ned", "NED", {("fad", "avg"): value})])
    whole = json.dumps(content("ned", "NED", NED))
    path = tmp_path / "ned.json"
    path.write_text(whole)
    newer = tmp_path / "newer.json"
    newer.write_text(whole.replace('"schema": 1', '"schema": 2'))
    nan = tmp_path / "nan.json"
    nan.write_text(whole.replace('"value": 4.0', '"value": NaN'))
    lost = tmp_path / "lost.json"
    lost.write_text(whole.replace('"protocol": {', '"protocol": "p", "was": {'))
    (tmp_path / "empty").mkdir()
    for given, said in (
        ([newer], "has schema 2; this version reads 1. Upgrade spfem-bench"),
        ([nan], "it holds NaN"),
        ([lost], "is damaged: 'protocol"),
        ([tmp_path / "empty"], "no run record in"),
        ([path, "asccl-mead"], "do not go into one table"),
        (["asccl-mad"], "Did you mean 'asccl-mead'?"),
        ([tmp_path / "no.csv"], "is no file or folder"),
    ):
        text = run(*map(str, given), code=1)
        assert said in text and text.count("\n") == 1, text
    assert "belongs to --format latex" in run(str(path), "--standalone", code=2)


def test_protocols_stand_in_blocks_of_their_own() -> None:
    same = record("ned", "NED", {("fad", "avg"): 9.0}, protocol="other", sign="o")
    table = make_table([record("ned", "NED", NED), record("vd", "VD", VD), same])
    assert list(dict.fromkeys(block.label for block, _ in table.rows)) == [
        "Cross-ID (p)",
        "Cross-ID (other)",
    ]
    assert table.ranks(table.rows[-1][0], "avg", "fad") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no lines under its head"),
        ("method,emotion,metric,value\n", "has no lines under its head"),
        ("method,emotion,metrics,value\na,sad,fad,1\n", "no column 'metric'. Did you mean"),
        ("method,emotion,metric,value\na,sad,fad\n", "line 2: 3 cells under a head of 4"),
        ("method,emotion,metric,value\na,sad,fad,nan\n", "line 2: 'nan' is no number"),
        ("method,emotion,metric,value\na,sad,fad,x\n", "line 2: 'x' is no number"),
        ("method,emotion,metric,value\na,sad,fad,1_000\n", "line 2: '1_000' is no number"),
        ("method,emotion,metric,value\na,sad,fad,1e999\n", "line 2: '1e999' is no number"),
        ("method;emotion;metric;value\na;sad;fad;1\n", "columns are separated by ';'"),
        ("method,emotion,metric,value,value\na,sad,fad,1,2\n", "the column 'value' twice"),
        ("method,emotion,metric,value\na,,fad,1\n", "line 2: no emotion"),
        ("method,emotion,metric,value\na,sad,fad,\n", "holds no numbers"),
        ("method,emotion,metric,value\na,sad,fad,1\na,sad,fad,1\n", "the cell of line 2 again"),
    ],
)
def test_bad_tidy_tables_are_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    output = run(str(path), code=1)
    assert said in output and output.count("\n") == 1


def test_a_tidy_table_of_ones_own_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("method,emotion,metric,value\nmine,sad,fvd,1.50\nmine,avg,fvd,1.50\n")
    assert "mine fvd" in run(str(path)) and "1.50" in run(str(path))
    with pytest.raises(UnknownNameError, match="published table"):
        printed_table("nothing")
