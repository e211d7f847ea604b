"""``spfem-bench``: the group of all commands."""

from __future__ import annotations

import os
from typing import Any

import click

from spfem_bench.cli import options
from spfem_bench.cli.align import align
from spfem_bench.cli.audit import audit
from spfem_bench.cli.cache import cache
from spfem_bench.cli.check import check
from spfem_bench.cli.compare import compare
from spfem_bench.cli.correlate import correlate
from spfem_bench.cli.data import data
from spfem_bench.cli.demo import demo
from spfem_bench.cli.diff import diff
from spfem_bench.cli.evaluate import evaluate
from spfem_bench.cli.faces import faces
from spfem_bench.cli.list import list_
from spfem_bench.cli.networks import networks
from spfem_bench.cli.preference import preference
from spfem_bench.cli.prepare import prepare
from spfem_bench.cli.protocol import protocol
from spfem_bench.cli.report import report
from spfem_bench.cli.score import score
from spfem_bench.cli.stccl import stccl
from spfem_bench.cli.table import table
from spfem_bench.cli.train import train
from spfem_bench.cli.validate import validate
from spfem_bench.errors import SpfemBenchError
from spfem_bench.processes import terminated_by_signals
from spfem_bench.texts import make_visible
from spfem_bench.version import __version__


class _Group(click.Group):
    """Turns the library's errors into one line on standard error and exit code 1.

    Ctrl-C, SIGTERM and SIGHUP end any command with one line and exit code 128 + signal.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command, with control characters in its output escaped."""
        if "_SPFEM_BENCH_COMPLETE" not in os.environ:  # a shell reads bytes then, with line feeds
            make_visible()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminated_by_signals():
                return super().invoke(ctx)
        except SpfemBenchError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            options.interrupted()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="spfem-bench")
def main() -> None:
    """Evaluate speech-preserving facial expression manipulation (SPFEM).

    FAD, CSIM and LSE-D on videos, under inter-ID and cross-ID protocols, with
    counts, intervals and a signature beside every number.

    \b
    A first run, on the embedded demo (nothing to fetch):
      spfem-bench eval --method controls
      spfem-bench demo sheet cast
      spfem-bench validate

    \b
    On clips published by the papers' authors (17 MB, networks 61 MB):
      spfem-bench networks fetch --profile light
      spfem-bench data fetch stccl-page
      spfem-bench eval --protocol stccl-page-ned --method ned --method stccl-ned

    \b
    Your own outputs and the clips they were made of, matched by name:
      spfem-bench eval --generated DIR --source DIR

    Exit codes: 0 done; 1 an error, said in one line; 2 wrong options, or no
    headline score (clips or weights are missing, and no --partial); 128 + signal
    after Ctrl-C (130), SIGHUP (129) or SIGTERM (143).
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    # Threads of torch that wait must not spin: on a busy machine that is five times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # FAD's matrices are too small to share: OpenBLAS would spend its time on waiting.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


for _commands in (
    (evaluate, table, audit, preference, report, compare, diff, validate, check, score),
    (list_, protocol, networks, data, prepare, cache, demo, faces, align, correlate, train, stccl),
):
    for _command in _commands:
        main.add_command(_command)
