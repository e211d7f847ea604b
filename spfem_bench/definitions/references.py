"""BibTeX of this tool and of the papers that metrics come from: ``metrics/references.bib``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from spfem_bench.definitions.cards import Kind, card_folders
from spfem_bench.definitions.metrics import known_metric
from spfem_bench.errors import unknown_name
from spfem_bench.stored import read_bounded

TOOL = "spfembench"
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}", re.MULTILINE | re.DOTALL)


def bibtex(metrics: Iterable[str]) -> str:
    """Return BibTeX entries of this tool and of the metrics' papers, each once.

    A metric without a card, such as one of an old record, has none. Entries are in
    ``metrics/references.bib``, also of the folders that SPFEM_BENCH_CARDS names. Raises
    UnknownNameError when a card names a key that no file has.
    """
    keys = dict.fromkeys([TOOL])
    for metric in metrics:
        card = known_metric(metric)
        keys |= dict.fromkeys(card.references if card else ())
    entries = entries_by_key()
    for key in keys.keys() - entries.keys():
        raise unknown_name("key in metrics/references.bib", key, entries)
    return "\n\n".join(entries[key] for key in keys) + "\n"


def entries_by_key() -> dict[str, str]:
    """Return all BibTeX entries by key."""
    paths = [folder / Kind.METRIC.value / "references.bib" for folder in card_folders()]
    texts = [read_bounded(path).decode() for path in paths if path.is_file()]
    return {match[1]: match[0] for text in texts for match in _ENTRY.finditer(text)}
