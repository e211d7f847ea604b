"""A record beside an earlier one, as text, as JSON and as JUnit XML."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree as Xml

from spfem_bench.analysis.regression import MetricChange, RegressionCheck
from spfem_bench.reporting.check import change_text
from spfem_bench.texts import text_table


def regression_text(check: RegressionCheck) -> str:
    """Return the table of all averages, what differs, and in the last line the verdict."""
    heads = ["Metric", "Was", "Is", "Difference", "Allowed", "Verdict"]
    rows = [[*_numbers(row), f"{row.verdict} {row.note and f'({row.note})'}"] for row in check.rows]
    lines = [text_table(rows, heads, "lrrrrl"), ""]
    if check.versions:
        named = "; ".join(change_text(c) for c in check.versions)
        lines.append(f"versions and machine, which tolerances cover: {named}")
    of = f"{check.method} on {check.protocol}"
    if check.holds:
        return "\n".join([*lines, f"No number of {of} is worse than allowed."])
    failed = ", ".join(row.metric for row in check.rows if not row.holds)
    return "\n".join([*lines, f"Fails: {failed} of {of}."])


def regression_json(check: RegressionCheck) -> dict[str, Any]:
    """Return a check as plain JSON values."""
    rows = [{**asdict(row), "difference": row.by, "holds": row.holds} for row in check.rows]
    about = {"method": check.method, "protocol": check.protocol, "holds": check.holds}
    return {**about, "rows": rows, "versions": [asdict(c) for c in check.versions]}


def regression_junit(check: RegressionCheck) -> bytes:
    """Return a check as JUnit XML: one test for each metric, as CI services read it."""
    failed = sum(not row.holds for row in check.rows)
    counts = {"tests": str(len(check.rows)), "failures": str(failed), "errors": "0"}
    suites = Xml.Element("testsuites", counts)
    name = _xml_text(f"{check.method} on {check.protocol}")
    suite = Xml.SubElement(suites, "testsuite", {"name": name, "skipped": "0", **counts})
    for row in check.rows:
        case = Xml.SubElement(suite, "testcase", {"classname": name, "name": _xml_text(row.metric)})
        _, was, now, by, allowed = _numbers(row)
        text = _xml_text(f"was {was}, is {now} ({by}; allowed: {allowed}). {row.note}".strip())
        if row.holds:
            Xml.SubElement(case, "system-out").text = f"{row.verdict}: {text}"
        else:
            Xml.SubElement(case, "failure", {"message": f"{row.verdict}: {text}"}).text = text
    Xml.indent(suites)
    written: bytes = Xml.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written


def _numbers(row: MetricChange) -> tuple[str, str, str, str, str]:
    def form(number: float | None, how: str) -> str:
        return "–" if number is None else format(number, how)

    allowed = f"{row.allowed:.2g}"
    return row.metric, form(row.was, ".6g"), form(row.now, ".6g"), form(row.by, "+.2g"), allowed


def _xml_text(text: str) -> str:
    """Return text without what XML cannot hold (control characters, half a character)."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
