"""``spfem-bench eval``."""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.protocols import Protocol
    from spfem_bench.evaluation.outputs import Videos
    from spfem_bench.evaluation.plan import Plan
    from spfem_bench.networks.load import Precision


@click.command("eval")
@click.option(
    "--method",
    "methods",
    multiple=True,
    required=True,
    help="A published method, a control, or your own name; may be given several times. "
    "'controls' stands for all that a protocol has.",
)
@options.protocols("Which items to score: a name, or the path of a card (my-list.toml)")
@options.profile
@options.metrics
@click.option(
    "--videos",
    multiple=True,
    metavar="DIR|NAME=DIR",
    help="Your own outputs, one per item, named as the protocol expects. Beside other methods, "
    "say whose: NAME=DIR.",
)
@click.option(
    "--layout",
    help="How the system that wrote them names outputs: ned, sserd, eat, dice-talk, icface, or a "
    "card of yours.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only print which of the --videos is taken for which item; nothing is written.",
)
@click.option(
    "--frame-rate", type=click.FloatRange(1, 1000), help="For outputs that are folders of frames."
)
@click.option(
    "--partial",
    is_flag=True,
    help="Score what is there; headline numbers are marked as partial.",
)
@options.results
@options.workers_on_ray
@options.ray
@options.batch_size
@options.device
@options.precision("float32")
@options.hwaccel
@click.option("--json", "as_json", is_flag=True, help="Print the scores as a JSON list.")
@options.weights_dir
@options.data_dir
@options.quiet
def evaluate(
    methods: tuple[str, ...],
    protocols: tuple[str, ...],
    profile: str | None,
    metrics: list[str],
    videos: tuple[str, ...],
    layout: str | None,
    dry_run: bool,
    frame_rate: float | None,
    partial: bool,
    results: Path,
    workers: int | None,
    ray: str | None,
    batch_size: int | None,
    device: str,
    precision: str | None,
    hwaccel: str | None,
    as_json: bool,
    weights_dir: Path | None,
    data_dir: Path | None,
    quiet: bool,
) -> None:
    """Score methods on protocols.

    The default protocols are the embedded demo: clips of drawn puppets and
    small networks, both shipped with the package. A preflight first
    lists what is missing, extra or unreadable. Features are kept, so that a
    second run computes no network and a killed one goes on. The run record,
    from which 'spfem-bench table' draws, is written to
    RESULTS/PROTOCOL/METHOD.PROFILE.json (in half precision,
    METHOD.PROFILE.PRECISION.json).

    \b
    Examples:
      spfem-bench eval --method real --method source
      spfem-bench eval --method controls --protocol demo-inter-id
      spfem-bench eval --method stccl-ned --protocol stccl-page-ned
      spfem-bench eval --method my-model --videos out/ --protocol stccl-page-ned
      spfem-bench eval --method a --videos a=out/a --method b --videos b=out/b --workers 2
      spfem-bench eval --method ned --protocol stccl-page-ned --metrics fad,csim --json -q
      spfem-bench eval --method ned --videos out/ --layout ned --protocol mead-cross-id --dry-run
      spfem-bench eval --method controls --ray local --workers 2

    Without --partial, a method with missing or refused clips gets no headline
    score and exit code 2.
    """  # noqa: D301
    import json
    from dataclasses import asdict

    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.layouts import layout_card
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.definitions.protocols import protocol as read_protocol
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation.controls import controls
    from spfem_bench.evaluation.outputs import Videos
    from spfem_bench.evaluation.plan import make_plan
    from spfem_bench.evaluation.session import carry_out, rival_packages
    from spfem_bench.execution.local import Processes
    from spfem_bench.files import check_writable
    from spfem_bench.networks.weights import WeightsStore
    from spfem_bench.reporting.tables import comparison, score_lines

    team = options.team(ray, workers, device)
    weights, data = WeightsStore.locate(weights_dir), DataFolders.locate(data_dir)
    if (layout or dry_run) and not videos:
        raise click.UsageError("--layout and --dry-run are about --videos DIR: give it too")
    named = layout_card(layout) if layout else None
    own = {
        method: Videos(folder, frame_rate, named)
        for method, folder in _folders(videos, methods).items()
    }
    plans = []
    found_protocols = [read_protocol(name) for name in dict.fromkeys(protocols)]
    if dry_run:
        whole = [
            _show_mapping(one, listed, data, as_json=as_json)
            for listed in found_protocols
            for one in own.values()
        ]
        sys.exit(0 if all(whole) else 2)
    several = len(methods) > 1 or methods == ("controls",)
    if isinstance(team, Processes) and (several or len(found_protocols) > 1):
        team.begin()
    for listed in found_protocols:
        networks = profile_card(profile or listed.card.profile)
        names = [[c.name for c in controls(listed)] if m == "controls" else [m] for m in methods]
        for method in dict.fromkeys(chain.from_iterable(names)):
            plans.append(
                make_plan(
                    method,
                    listed,
                    networks,
                    data=data,
                    weights=weights,
                    metrics=metrics,
                    videos=own.get(method),
                    progress=options.progress(quiet),
                )
            )
    chosen = cast("Precision", precision or "float32")
    half = "" if chosen == "float32" else f".{chosen}"
    for note in dict.fromkeys(plan.note for plan in plans if plan.note and not quiet):
        click.echo(note, err=True)
    printed, incomplete, ready = [], False, []
    compared: dict[str, list[dict[str, Any]]] = {}
    for plan in plans:
        _show_preflight(plan, quiet=quiet, partial=partial)
        if not plan.metrics or (not plan.complete and not partial):
            incomplete = True
            continue
        path = records.record_path(
            results, plan.protocol.name, plan.method.name, plan.profile.name + half
        )
        check_writable(path.parent)
        ready.append((plan, path))
    for line in [] if quiet else rival_packages(plan for plan, _ in ready):
        click.echo(line, err=True)
    carried = carry_out(
        [plan for plan, _ in ready],
        weights,
        partial=partial,
        workers=team,
        batch_size=batch_size,
        device=device,
        precision=chosen,
        hwaccel=hwaccel,
        progress=lambda plan: options.progress_bars(_count_clips(plan), quiet=quiet),
    )
    for plan, path in ready:
        try:
            record = next(carried)
        except KeyboardInterrupt:
            options.interrupted()
        networks, name = plan.profile, plan.protocol.name
        rows = records.scores(record)
        if not quiet and (lost := records.replaced_metrics(path, rows)):
            click.echo(f"{path} is replaced; it also had {', '.join(lost)}.", err=True)
        records.save(record, path)
        scored = any(s.value is not None for s in rows)
        incomplete = incomplete or not scored or not (record["complete"] or partial)
        _show_refused(plan, record, quiet=quiet and partial)
        printed += [asdict(s) for s in rows]
        compared.setdefault(name, []).append(record)
        if as_json or several:
            continue
        title = f"{plan.method.label} on {name} ({plan.protocol.card.setting})"
        click.echo(f"\n{title}, profile {networks.name}")
        click.echo(score_lines(record))
        _show_signatures([record])
        if not quiet:
            for note in plan.protocol.card.notes:
                click.echo(f"Note: {note}", err=True)
            click.echo(f"Record: {path}   Full table: spfem-bench table {path}", err=True)
    if as_json:
        click.echo(json.dumps(printed, indent=1))
    elif several:
        for name, found in compared.items():
            click.echo(f"\n{name}, profile {found[0]['profile']}")
            click.echo(comparison(found))
            _show_signatures(found)
            if not quiet:
                click.echo(f"With intervals: spfem-bench table {results / name}", err=True)
    if incomplete:
        sys.exit(2)


def _folders(given: tuple[str, ...], methods: tuple[str, ...]) -> dict[str, Path]:
    """Return where the outputs of which methods are.

    Raises:
        UsageError: it is not said whose they are, or of a method that is not asked for.
    """
    found: dict[str, Path] = {}
    for each in given:
        name, _, folder = each.partition("=")
        if not folder or Path(each).exists():
            name, folder = methods[0], each
            if len(methods) > 1:
                raise click.UsageError(
                    f"--videos {each}: whose? With several methods type --videos NAME={each}"
                )
        if name not in methods:
            raise click.UsageError(f"--videos {each}: there is no --method {name}")
        if name == "controls":
            raise click.UsageError(f"--videos {each}: controls have none; add --method NAME for it")
        if name in found:
            raise click.UsageError(f"--videos is given twice for {name}")
        checked = options.FOLDER.convert(folder, None, click.get_current_context())
        found[name] = Path(os.fsdecode(checked))
    return found


def _count_clips(plan: Plan) -> int:
    return len({c for item in plan.items for c in (*item.clips.values(), *item.more_real)})


def _show_mapping(own: Videos, listed: Protocol, data: DataFolders, *, as_json: bool) -> bool:
    """Print which of the user's files is taken for which item; say whether all were found."""
    import json
    from collections import Counter

    from tabulate import tabulate

    from spfem_bench.definitions.datasets import dataset_card
    from spfem_bench.errors import ClipError
    from spfem_bench.evaluation.outputs import place_outputs

    provider = data.provider(dataset_card(listed.card.dataset))
    placed, extra = place_outputs(own, listed, provider)
    states = Counter(p.state for p in placed)
    counts = {state: states[state] for state in ("found", "absent", "ambiguous")}
    counts["extra"] = len(extra)
    if as_json:
        items = [
            {"item": p.item, "state": p.state, "places": p.places, "sound": p.sound}
            | ({"reason": str(p.clip)} if isinstance(p.clip, ClipError) else {})
            for p in placed
        ]
        said = {"protocol": listed.name, "counts": counts, "items": items, "extra": extra}
        click.echo(json.dumps(said, indent=1))
        return counts["found"] == len(placed)
    rows = []
    for p in placed:
        part = ""
        if not isinstance(p.clip, ClipError) and p.clip.pictures:
            part = f", frames {p.clip.pictures[0]} to {p.clip.pictures[1] - 1}"
        rows.append([p.item, p.state, " and ".join(p.places) + part, p.sound])
    rows += [["", "extra", name, ""] for name in extra]
    click.echo(f"{own.folder} for {listed.name}:")
    click.echo(tabulate(rows, ["Item", "", "Output", "Sound"], disable_numparse=True))
    click.echo(", ".join(f"{n} {state}" for state, n in counts.items() if n))
    for state in ("ambiguous", "absent"):
        reasons = [p.clip for p in placed if p.state == state and isinstance(p.clip, ClipError)]
        told = [e.problem for e in reasons if state == "ambiguous"] + [e.remedy for e in reasons]
        for line in dict.fromkeys(filter(None, told)):
            click.echo(line, err=True)
    return counts["found"] == len(placed)


def _show_preflight(plan: Plan, *, quiet: bool, partial: bool) -> None:
    from spfem_bench.evaluation.preflight import plan_summary

    found = plan_summary(plan)
    if found and (not quiet or not (plan.complete or partial)):
        click.echo(
            f"{plan.method.label} on {plan.protocol.name}, before any network runs:", err=True
        )
        for line in found:
            click.echo(f"  {line}", err=True)
    if not plan.complete and not partial:
        click.echo("No headline score: add --partial to score what is there.", err=True)


def _show_refused(plan: Plan, record: dict[str, Any], *, quiet: bool) -> None:
    told = {(r.item, r.reason) for r in plan.refusals}
    for refusal in record["refused"]:
        new = (refusal["item"], refusal["reason"]) not in told
        if new and refusal["kind"] == "refused" and not quiet:
            hit = ", ".join(refusal["metrics"])
            click.echo(f"refused for {hit}: {refusal['reason']}. {refusal['remedy']}", err=True)


def _show_signatures(found: list[dict[str, Any]]) -> None:
    from spfem_bench.evaluation.record import scores

    for sign in dict.fromkeys(s.signature for r in found for s in scores(r) if s.signature):
        click.echo(sign)
