"""Run records of made-up numbers, whole as docs/run_record.md describes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import EMOTIONS

METRICS = ("fad", "csim", "lse-d", "lse-c", "av-offset", "id-sim", "scc")


def items(
    count: int, speakers: int = 6, emotions: Sequence[str] = EMOTIONS
) -> list[dict[str, Any]]:
    """Items without metrics, spread over speakers and emotions."""
    return [
        {
            "id": f"S{i % speakers:03d}_{emotions[i % len(emotions)]}_{i:03d}",
            "speaker": f"S{i % speakers:03d}",
            "emotion": emotions[i % len(emotions)],
            "clips": {
                role: {"address": f"{role}/{i:03d}.mp4", "content": f"{i:064x}"}
                for role in ("source", "reference", "real", "output")
            },
            "metrics": {},
        }
        for i in range(count)
    ]


def components(metric: str, value: float) -> dict[str, Any]:
    """What a record keeps of an item whose value is this one."""
    counts = {"n_frames": 50, "n_frames_refused": 0, "n_frames_interpolated": 0}
    statistic = metric_card(metric).statistic
    if statistic.kind == "frechet":
        return {**counts, "n_frames_real": 50, "moments_sha256": "0" * 64}
    if statistic.kind == "similarity":
        return {**counts, "total": value * 50, "count": 50}
    if statistic.kind == "coherence":
        return {
            **counts,
            "lag": 0,
            "positive": [value] * 4,
            "elsewhere": [0.0] * 4,
            "near": [0.0] * 4,
        }
    totals = np.full(31, 12.0 * 50)
    if statistic.report == "distance":
        totals[15] = value * 50
    elif statistic.report == "confidence":
        totals[15] = (12.0 - value) * 50
    else:
        totals[15 - round(value)] = 7.0 * 50
    return {**counts, "totals": totals.tolist(), "windows": 50, "windows_refused": 0}


def score(metric: str, emotion: str, value: float | None, **other: Any) -> dict[str, Any]:
    """One number of a record, without what all have in common; *other* fields as given."""
    interval: dict[str, Any] = {"low": None, "high": None}
    counts = {"n_items": 1, "n_frames": 50, "n_refused": 0, "n_frames_refused": 0}
    words = {"partial": False, "kind": "reproduced", "note": "", "signature": ""}
    own = {"metric": metric, "emotion": emotion, "value": value}
    return own | interval | counts | words | other


def named(run: dict[str, Any]) -> dict[str, Any]:
    """What all scores of a record have in common."""
    protocol = {"protocol": run["protocol"]["name"], "setting": run["protocol"]["setting"]}
    return {"method": run["method"]["name"], **protocol, "profile": run["profile"]}


def whole(
    method: str,
    scores: Sequence[dict[str, Any]],
    protocol: dict[str, Any],
    *,
    label: str = "",
    kind: str = "system",
    **other: Any,
) -> dict[str, Any]:
    """A record with these scores, see :func:`score`, and other fields as given, else empty."""
    about = {"name": method, "label": label or method, "kind": kind, "control": None}
    listed = {"name": "mini", "version": 1, "setting": "inter-id", "emotions": [], "n_items": 0}
    run: dict[str, Any] = {
        "schema": 1,
        "method": about | {"paper": "", "link": ""},
        "protocol": {**listed, "list_sha256": "", "published": None, **protocol},
        **{"profile": "light", "complete": True, "partial": False, "scores": [], "items": []},
        **{"refused": [], "extra": [], "settings": {}, "environment": {"device": "cpu"}},
        "timings": {},
        **other,
    }
    return run | {"scores": [named(run) | one for one in scores]}


def record(
    method: str = "model",
    *,
    label: str = "",
    kind: str = "system",
    of: Sequence[dict[str, Any]] | None = None,
    metrics: Sequence[str] = METRICS,
    protocol: str = "demo-inter-id",
    seed: int = 0,
) -> dict[str, Any]:
    """A run of a method whose items' values are drawn at random, by its seed."""
    generator = np.random.default_rng(seed)
    listed = [json.loads(json.dumps(item)) for item in (items(14) if of is None else of)]
    emotions = list(dict.fromkeys(item["emotion"] for item in listed))
    settings, scores = {}, []
    for metric in metrics:
        card = metric_card(metric)
        settings[metric] = {
            "metric": card.settings(),
            "protocol": {"name": protocol, "version": 1, "dataset": "puppets"},
            "network": {"name": "compact-identity", "files": [{"sha256": "ab" * 32}]},
            "faces": {"faces": "aligned"},
            "media": {"frame_rate": 25, "ffmpeg": "7.1"},
            "seed": 0,
            "software": {"spfem-bench": "0.1.0", "torch": "2.9"},
        }
        values: dict[str, list[float]] = {e: [] for e in emotions}
        for item in listed:
            value = float(generator.normal(0.6 + 0.02 * seed, 0.1))
            value = float(generator.integers(-3, 4)) if metric == "av-offset" else value
            item["metrics"][metric] = components(metric, value)
            values[item["emotion"]].append(value)
        means = {e: float(np.mean(v)) for e, v in values.items()}
        means["avg"] = float(np.mean(list(means.values()))) if means else 0.0
        sign = (
            f"{metric}:1|{protocol}:1|compact|#{hashlib.sha256(metric.encode()).hexdigest()[:10]}"
        )
        for emotion, mean in means.items() if listed else ():
            n = len(listed) if emotion == "avg" else len(values[emotion])
            own = {"low": mean - 0.05, "high": mean + 0.05, "n_items": n, "n_frames": 50 * n}
            own |= {"kind": "control" if kind == "control" else "reproduced", "signature": sign}
            scores.append(score(metric, emotion, mean, **own))
    return whole(
        method,
        scores,
        {"name": protocol, "emotions": emotions, "n_items": len(listed), "list_sha256": "cd" * 32},
        label=label,
        kind=kind,
        profile="compact",
        items=listed,
        settings=settings,
        environment={"python": "3.11.7", "platform": "linux", "device": "cpu", "processors": 2},
        timings={"started": "2026-01-02T03:04:05+00:00", "features_s": 1.0, "scores_s": 1.0},
    )


def by_hand(
    method: str,
    values: Sequence[tuple[float, float]],
    *,
    protocol: str = "small",
    missing: int = 0,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A run of id-sim and CSIM whose scores follow from its clips: two emotions, one clip each.

    *values* are each clip's in both metrics. The last *missing* clips are refused, so that the run
    is partial. *settings* are of the media, such as ``{"frame_rate": 30}``: another signature.
    """
    metrics = ("id-sim", "csim")
    of = items(2, emotions=("angry", "happy"))
    run = record(method, of=of, metrics=metrics, protocol=protocol, **options)
    run["scores"] = []
    for n, metric in enumerate(metrics):
        frozen = run["settings"][metric]
        frozen["protocol"]["list"] = run["protocol"]["list_sha256"]
        frozen["media"] |= settings or {}
        scored = run["items"][: 2 - missing]
        for item, pair in zip(run["items"], values, strict=True):
            item["metrics"][metric] = components(metric, pair[n])
        if missing:
            del run["items"][1]["metrics"][metric]
        network, seed = f"compact-identity@{'ab' * 4}", json.dumps(frozen, sort_keys=True)
        ids = json.dumps(sorted(item["id"] for item in scored))
        partial = f"partial:1of2@{hashlib.sha256(ids.encode()).hexdigest()[:6]}|" if missing else ""
        sign = (
            f"{metric}:1|{protocol}:1|compact|{network}|faces:aligned|"
            f"{frozen['media']['frame_rate']}fps|ffmpeg7.1|v0.1.0|{partial}"
            f"#{hashlib.sha256(seed.encode()).hexdigest()[:10]}"
        )
        known = [pair[n] for pair in values][: 2 - missing]
        for emotion, own in (("angry", known[:1]), ("happy", known[1:]), ("avg", known)):
            expected = 2 if emotion == "avg" else 1
            counts = {"n_items": len(own), "n_frames": 50 * len(own), "signature": sign}
            counts |= {"n_refused": expected - len(own), "partial": len(own) < expected}
            kind = "control" if run["method"]["kind"] == "control" else "reproduced"
            mean = sum(own) / len(own) if own else None
            one = score(metric, emotion, mean, kind=kind, **counts)
            run["scores"].append(named(run) | one)
    if missing:
        refusal = {"item": run["items"][1]["id"], "clip": "x.mp4", "metrics": list(metrics)}
        run["refused"] = [refusal | {"kind": "missing", "reason": "it is gone", "remedy": ""}]
    return run | {"complete": not missing, "partial": bool(missing)}
