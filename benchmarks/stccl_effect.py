"""What STCCL does to mini-NED: the same trainings with and without it, over seeds.

    SPFEM_BENCH_CARDS=cards python benchmarks/stccl_effect.py --config ned --config stccl-vd-ned \
        --config stccl-cm-ned --seed 1 --seed 2 --seed 3

Reads the models NAME-seedK that 'spfem-bench demo train-ned' has left among your cards; the first
configuration is what the others are compared with. Prints for each setting and metric the mean
over the seeds, the difference from the first with a 95 % interval over clips (drawn again within
each emotion, the same ones for all models; the seeds are kept as they are), and each seed's
difference, which shows how much a training alone moves. The numbers are written as CSV with
--csv FILE.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from spfem_bench.definitions.metrics import metric_card, profile_card
from spfem_bench.definitions.protocols import protocol as read_protocol
from spfem_bench.evaluation.data import DataFolders
from spfem_bench.evaluation.plan import make_plan
from spfem_bench.evaluation.run import (
    Resampled,
    average,
    compute_features,
    measure,
    resample,
    wanted_features,
)
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore

METRICS = ["fad", "csim", "lse-d", "lse-c", "id-sim"]
PROTOCOLS = ["demo-inter-id", "demo-cross-id"]


def headlines(model: str, protocol: str, metrics: list[str], workers: int) -> dict[str, Resampled]:
    """Return a model's headline scores on a protocol, with their draws."""
    weights, listed = WeightsStore.locate(None), read_protocol(protocol)
    plan = make_plan(
        model, listed, profile_card(listed.card.profile), data=DataFolders.locate(None),
        weights=weights, metrics=metrics,
    )  # fmt: skip
    extractor = Extractor(plan.profile, weights, FeatureStore.locate(), faces=listed.card.faces)
    failures = compute_features(extractor, wanted_features(plan), workers)
    found = {}
    for metric in plan.metrics:
        results, refused = measure(plan, metric, extractor, failures)
        if refused:
            sys.exit(f"{model} on {protocol}: {len(refused)} clips refused: {refused[0].reason}")
        scores = resample(metric, results, listed.card.emotions)
        found[metric.name] = average([*scores.values()])
    return found


def rows(
    scores: Mapping[tuple[str, int], Mapping[str, Resampled]],
    configs: list[str],
    seeds: list[int],
    protocol: str,
) -> list[dict[str, object]]:
    """Return one row for each configuration and metric."""
    lines: list[dict[str, object]] = []
    for metric in METRICS:
        for name in configs:
            mine = [scores[name, seed][metric] for seed in seeds]
            mean = average(mine)
            low, high = mean.interval
            line: dict[str, object] = {
                "protocol": protocol, "metric": metric, "model": name, "seeds": len(seeds),
                "mean": mean.value, "low": low, "high": high,
            }  # fmt: skip
            if name != configs[0]:
                apart = [
                    s - scores[configs[0], k][metric] for s, k in zip(mine, seeds, strict=True)
                ]
                low, high = average(apart).interval
                line |= {
                    "difference": average(apart).value, "difference_low": low,
                    "difference_high": high, "by_seed": " ".join(f"{a.value:+.4f}" for a in apart),
                }  # fmt: skip
            lines.append(line)
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--seed", action="append", type=int, required=True)
    parser.add_argument("--protocol", action="append", choices=PROTOCOLS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path)
    told = parser.parse_args()
    every = []
    for protocol in told.protocol or PROTOCOLS:
        scores = {
            (name, seed): headlines(f"{name}-seed{seed}", protocol, METRICS, told.workers)
            for name in told.config
            for seed in told.seed
        }
        found = rows(scores, told.config, told.seed, protocol)
        every += found
        print(f"\n{protocol}, means over {len(told.seed)} seeds")
        lines = []
        for r in found:
            metric, apart = metric_card(str(r["metric"])), ""
            if "difference" in r:
                apart = f"{r['difference']:+.4f} [{r['difference_low']:+.4f}, "
                apart += f"{r['difference_high']:+.4f}]"
            lines.append([metric.label, r["model"], f"{r['mean']:.4f}", apart, r.get("by_seed")])
        heads = ["Metric", "Model", "Mean", f"Beside {told.config[0]}", "Each seed"]
        print(tabulate(lines, heads, disable_numparse=True))
    if told.csv:
        with told.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in every for k in r)))
            writer.writeheader()
            writer.writerows(every)


if __name__ == "__main__":
    main()
