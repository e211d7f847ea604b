"""Run records whose every name tries to get out of the text it belongs into."""

from __future__ import annotations

from typing import Any

from tests.synthetic import items, record

SCRIPT = "</script><script>window.pwned=1;alert(1)</script>"
IMAGE = '"><img src=x onerror="window.pwned=2;alert(2)">'
TEMPLATE = "{{ 7*191 }}{% raw %}${alert(3)}"
LINK = "javascript:window.pwned=4"
BIDI = "safe\u202egnp.exe\u2066\ud800"
PLACE = "../../../../etc/passwd"
LONG = "x" * 5000
STYLE = "</style><style>@import url(https://example.org/x.css);body{display:none}</style>"
COMMENT = "<!--<svg onload=window.pwned=5>"
QUOTE = "' onmouseover='window.pwned=6' x='"

SHOWN = (SCRIPT, IMAGE, TEMPLATE, LINK, PLACE, "safe⟨U+202E⟩gnp.exe⟨U+2066⟩⟨U+D800⟩")
"""Names as the page must show them."""


def records() -> list[dict[str, Any]]:
    listed = items(6, emotions=("angry", IMAGE, COMMENT))
    for item, name in zip(listed, (SCRIPT, IMAGE, BIDI, PLACE, LINK, STYLE), strict=True):
        item["id"] = name
        item["speaker"] = name[::-1] + QUOTE
        item["clips"]["output"]["address"] = PLACE
        item["clips"]["source"]["address"] = f"{SCRIPT}.mp4"
        item["clips"]["reference"]["address"] = LONG
    listed[0]["clips"]["output"]["address"] = LONG
    listed[1]["clips"]["output"]["address"] = "/etc/passwd"
    found = []
    for n, name in enumerate((SCRIPT, IMAGE, TEMPLATE, BIDI)):
        run = record(f"m{n}-{name}", label=name, of=listed, seed=n)
        run["method"] |= {"link": LINK, "paper": STYLE}
        run["environment"]["platform"] = IMAGE
        run["settings"]["fad"]["network"]["name"] = COMMENT
        run["refused"] = [
            {
                "item": PLACE,
                "clip": SCRIPT,
                "metrics": ["fad"],
                "kind": IMAGE,
                "reason": SCRIPT,
                "remedy": QUOTE,
            },
        ]
        run["extra"] = [IMAGE]
        for score in run["scores"]:
            score |= {"note": STYLE, "signature": f"fad|{SCRIPT}"}
        found.append(run)
    return found
