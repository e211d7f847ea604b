"""What ``protocol solve`` found, as text."""

from __future__ import annotations

from collections import Counter

from spfem_bench.datasets.solving import SolvedProtocol
from spfem_bench.texts import text_table


def solved_text(solved: SolvedProtocol) -> str:
    """Return a table by cell, then how many are determined, and why others are not solved."""
    rows = []
    for one in solved.cells:
        chosen = " ".join(c.clip for c in one.chosen) or "–"
        counts = (one.here, one.cell.frames)
        rows.append([one.cell.speaker, one.cell.emotion, *counts, one.state, chosen])
    heads = ["Speaker", "Emotion", "Clips here", "Frames", "Sets that fit", "Chosen"]
    kinds = Counter(
        "determined" if one.state == "determined" else "several" if one.sets else "none"
        for one in solved.cells
    )
    frames = sum(c.frames for one in solved.cells for c in one.chosen)
    n_chosen = sum(len(one.chosen) for one in solved.cells)
    lines = [
        text_table(rows, heads, "llrr"),
        "",
        f"{len(solved.cells)} cells: {kinds['determined']} determined, {kinds['several']} with "
        f"several sets that fit, {kinds['none']} with none. {n_chosen} clips are chosen, {frames} "
        f"frames in all (of {sum(one.cell.frames for one in solved.cells)}).",
        f"Chosen among the clips of: {', '.join(solved.counted)}. Of several sets, the last clips "
        "by name are taken.",
        *(f"No set fits: {one.why}." for one in solved.cells if one.why),
    ]
    return "\n".join(lines)
