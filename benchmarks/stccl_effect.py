"""What STCCL does to mini-NED: the same trainings with and without it, over seeds.

    python benchmarks/stccl_effect.py RESULTS --config ned --config stccl-vd-ned --seed 1 --seed 2

Reads the records of the models NAME-seedK (trained by 'spfem-bench demo train-ned', evaluated by
'spfem-bench eval --results RESULTS'); the first configuration is what the others are compared with.
Prints for each protocol and metric the mean over the seeds, the difference from the first with a
95 % interval over speakers (docs/statistics.md; each clip's difference is the mean over the seeds),
and each seed's difference, which shows how much a training alone moves. --csv FILE keeps the
numbers.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from spfem_bench.analysis import resampling
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.evaluation.record import item_values, load_run, record_path

METRICS = ["fad", "csim", "lse-d", "lse-c", "id-sim"]
PROTOCOLS = ["demo-inter-id", "demo-cross-id"]


def rows(results: Path, protocol: str, configs: list[str], seeds: list[int]) -> list[Any]:
    """Return one row for each metric and configuration."""
    runs = {
        (name, seed): load_run(record_path(results, protocol, f"{name}-seed{seed}", "compact"))
        for name in configs
        for seed in seeds
    }
    lines = []
    for metric in METRICS:
        found = {key: item_values(record, metric) for key, record in runs.items()}
        items = found[configs[0], seeds[0]]
        values = {key: np.array([i.value for i in every]) for key, every in found.items()}
        emotions, speakers = [i.emotion for i in items], [i.speaker for i in items]
        for name in configs:
            mean = np.mean([values[name, k] for k in seeds], axis=0)
            score = resampling.estimate(mean, emotions, speakers)
            line: dict[str, Any] = {
                "protocol": protocol,
                "metric": metric,
                "model": name,
                "seeds": len(seeds),
                "mean": score.value[0],
            }
            if name != configs[0]:
                apart = np.array([values[name, k] - values[configs[0], k] for k in seeds])
                both = resampling.estimate(apart.mean(axis=0), emotions, speakers)
                low, high = resampling.intervals(resampling.draws(both))
                single = resampling.estimate(apart.T, emotions, speakers).value
                line |= {
                    "difference": both.value[0],
                    "low": low[0],
                    "high": high[0],
                    "by_seed": " ".join(f"{d:+.4f}" for d in single),
                }
            lines.append(line)
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--seed", action="append", type=int, required=True)
    parser.add_argument("--protocol", action="append", choices=PROTOCOLS)
    parser.add_argument("--csv", type=Path)
    told = parser.parse_args()
    every = []
    for protocol in told.protocol or PROTOCOLS:
        found = rows(told.results, protocol, told.config, told.seed)
        every += found
        lines = []
        for r in found:
            apart = ""
            if "difference" in r:
                apart = f"{r['difference']:+.4f} [{r['low']:+.4f}, {r['high']:+.4f}]"
            label = metric_card(r["metric"]).label
            lines.append([label, r["model"], f"{r['mean']:.4f}", apart, r.get("by_seed", "")])
        print(f"\n{protocol}, means over {len(told.seed)} seeds")
        heads = ["Metric", "Model", "Mean", f"Beside {told.config[0]}", "Each seed"]
        print(tabulate(lines, heads, disable_numparse=True))
    if told.csv:
        with told.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in every for k in r)))
            writer.writeheader()
            writer.writerows(every)


if __name__ == "__main__":
    main()
