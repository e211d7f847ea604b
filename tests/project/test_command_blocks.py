"""Every block of commands in README, CONTRIBUTING and docs/ is run; what cannot be is parsed.

Commands run in the folder of a small demo: two speakers, one emotion. A command that needs
something else meets a rule of `NOT_HERE`. One that meets none is run, so that no new block stays
unclassified.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.definitions import protocols
from spfem_bench.definitions.cards import tomllib
from spfem_bench.definitions.protocols import Protocol, ProtocolCard
from spfem_bench.evaluation import session
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.reporting import evaluation
from tests.command_lines import Block, blocks, commands_of, parse, shell_lines
from tests.conftest import ROOT, _run

PAGES = [
    str(path.relative_to(ROOT))
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if blocks(path.read_text(encoding="utf-8"))
]

SHELL, NOTHING_TO_RUN = ("sh", "bash"), ("", "text", "csv", "json", "yaml", "bibtex")

HERE = r"^spfem-bench (protocol (show|export)|table (stccl|asccl)-(mead|ravdess))"
"""Commands that are run although they name data that is not here."""

NOT_HERE = {
    # What is only parsed, and why; or the test that runs it.
    r"^spfem-bench check .*--against": "tests/project/test_action.py",
    r"^spfem-bench check": "tests/evaluation/test_check.py",
    r"networks (fetch|verify)|data fetch": "needs a network",
    r"stccl-page|asccl-repo|stccl-ned|stccl-vd-ned --protocol": "clips that are fetched",
    r"mead|ravdess|M\d{3}/|NED/|render_test|lists/my-tree|FACES": "licensed data",
    r"--device cuda": "a GPU",
    r"--ray": "tests/execution/test_cluster.py",
    r"--workers": "tests/execution/test_workers.py",
    r"--generated|results/(outputs|both|my-model)": "tests/cli/test_your_model.py",
    r"my-demo-inter-id": "tests/project/test_contributing.py",
    r"^spfem-bench protocol new lists --from ned": "tests/datasets/test_ned_trees.py",
    r"^spfem-bench prepare ned-faces": "tests/datasets/test_ned_faces.py",
    r"^spfem-bench validate": "tests/evaluation/test_validate.py",
    r"--heatmaps": "tests/features/test_coherence.py",
    r"^spfem-bench correlate --metric puppets": "tests/analysis/test_stccl_discovery.py",
    r"^spfem-bench stccl probe": "tests/puppets/test_puppet_probe.py",
    r"^spfem-bench (train|demo train|demo train-ned)\b": "minutes of training",
    r"^spfem-bench demo render --split": "126 clips",
    r"my-paper\.csv|\$|=out/": "a file or a name of the reader's own",
}

EXIT_CODES = {r"^spfem-bench audit": 1}
"""Of commands that report something with another code than 0: published tables contradict."""

OTHER_PROGRAMS = {
    "make": lambda words: words[1] + ":" in (ROOT / "Makefile").read_text(encoding="utf-8"),
    "python": lambda words: _benchmark_exists(words),
    "pip": lambda words: _extras(words) <= {*EXTRAS},
    "export": lambda words: all("=" in word for word in words[1:]),
    **dict.fromkeys(("ray", "srun", "source", "set", "read", "head"), lambda words: True),
    **dict.fromkeys(("ffmpeg", "mkdir", "eval"), lambda words: True),
}
"""First words of other commands, and what is checked of them: nothing of programs of others."""

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def _extras(words: list[str]) -> set[str]:
    return {name for word in words for name in re.findall(r"(?:spfem-bench|\.)\[(\w+)\]", word)}


def _benchmark_exists(words: list[str]) -> bool:
    if words[1] == "-m":
        return importlib.util.find_spec(words[2]) is not None
    return (ROOT / words[1]).is_file()


PYTHON = {
    # What runs a block of Python, by its page and code; those run here may need names: `_python`.
    r"torch_metrics": "tests/torch_metrics/test_torch_metrics.py",
    r"^CONTRIBUTING.md": "tests/project/test_contributing.py",
    r"^docs/plug_and_play.md": "tests/stccl/test_plug_and_play.py",
    r"^docs/(api|statistics|stccl|metrics/landmarks).md": "here",
}


@dataclass(frozen=True)
class Demo:
    """A folder in which commands are run as on a page, with records of the small demo."""

    folder: Path

    def run(self, command: str) -> None:
        words = shlex.split(command, comments=True)
        target = words[words.index(">") + 1] if ">" in words else None
        done = _run(*words[1 : words.index(">") if target else None])
        code = next((c for rule, c in EXIT_CODES.items() if re.search(rule, command)), 0)
        assert done.code == code, f"{command}: {done.err}"
        if target:
            Path(target).write_text(done.out, encoding="utf-8")


def small(full: Protocol) -> Protocol:
    """Return a protocol of the demo with two of its speakers, happy; others as they are."""
    if not full.name.startswith("demo-"):
        return full
    items = [i for i in full.items if i.speaker in ("P001", "P002") and i.emotion == "happy"]
    card: ProtocolCard = full.card.model_copy(update={"emotions": ("happy",)})
    return replace(full, card=card, items=tuple(items))


RECORDS = ("source", "real", "blurred")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("reader")
    read = protocols._read_items
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "_read_items", functools.cache(lambda *about: small(read(*about))))
        patch.setenv("SPFEM_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(folder)
        reader = Demo(folder)
        reader.run(f"spfem-bench eval --method {' --method '.join(RECORDS)} -q --results here")
        shutil.copytree(folder / "here", folder / "there")
        for name in RECORDS:
            shutil.copy(folder / f"here/demo-inter-id/{name}.compact.json", folder)
        for side in ("here", "there"):
            shutil.copy(folder / "source.compact.json", f"{side}.json")
        (folder / "votes.csv").write_text(_csv_in("docs/tables.md"), encoding="utf-8")
        yield reader


@pytest.fixture(autouse=True)
def _own_cache(demo: Demo) -> None:
    """Begin each page with the same two records; the cache is the module's."""
    shutil.rmtree(demo.folder / "results", ignore_errors=True)
    shutil.copytree(demo.folder / "here", demo.folder / "results")


def _csv_in(page: str) -> str:
    return next(
        block.body
        for block in blocks((ROOT / page).read_text(encoding="utf-8"))
        if block.body.startswith("participant,")
    )


def reason(command: str) -> str:
    """Return why a command is not run here; empty for one that is."""
    if re.search(HERE, command):
        return ""
    return next((why for rule, why in NOT_HERE.items() if re.search(rule, command)), "")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_or_can_be_typed(page: str, demo: Demo) -> None:
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.language == "python":
            _run_python(page, block, demo)
        elif block.language == "toml":
            tomllib.loads(block.body.replace("= …", "= 0"))
        elif block.language in SHELL:
            done = subprocess.run(["/bin/bash", "-n"], input=block.body, text=True, check=False)
            assert done.returncode == 0, block.body
            for line in shell_lines(block.body):
                _check_line(line, demo)
        else:
            assert block.language in NOTHING_TO_RUN, f"{page}: a block of '{block.language}'"


def _check_line(line: str, demo: Demo) -> None:
    for command in commands_of(line):
        parse(command)
        if not reason(command):
            demo.run(command)
    words = shlex.split(line, comments=True)
    if not commands_of(line) and not re.match(r"\w+=", words[0]):
        known = OTHER_PROGRAMS.get(words[0])
        assert known is not None, f"'{line}': say in OTHER_PROGRAMS what is to be checked of it"
        assert known(words), line


def _run_python(page: str, block: Block, demo: Demo) -> None:
    found = (where for rule, where in PYTHON.items() if re.search(rule, f"{page}\n{block.body}"))
    where = next(found, None)
    assert where, f"{page}: say in PYTHON what runs this block:\n{block.body}"
    compile(block.body, page, "exec")
    if where == "here":
        code, names = _python(page, block.body, demo)
        exec(code, names)  # noqa: S102  (our own page)


def _python(page: str, code: str, demo: Demo) -> tuple[str, dict[str, Any]]:
    """Return a page's code with files and clips that are here, and the names that it needs."""
    if page == "docs/api.md":
        outputs = demo.folder / "outputs"
        outputs.mkdir()
        for item in protocols.protocol("demo-inter-id").items:
            clip = ROOT / "protocols/datasets/puppets" / item.clips["reference"].path
            shutil.copy(clip, outputs / item.output_name)
        code = code.replace(', device="cuda"', "").replace("mead-cross-id", "demo-inter-id")
        return code.replace("ned.official", "source.compact"), {}
    if page == "docs/stccl.md":
        import torch

        from spfem_bench.stccl.metric import STCCL

        clip = torch.rand(1, 25, 3, 112, 112)
        return code, {"STCCL": STCCL, "source": clip, "generated": clip.clone()}
    if page == "docs/metrics/landmarks.md":
        return code, _landmarks()
    return code, {}


def _landmarks() -> dict[str, Any]:
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.networks.weights import WeightsStore

    listed = protocols.protocol("demo-inter-id")
    provider = DataFolders.locate().provider(listed.dataset)
    output, source = (
        replace(clip, path=provider.verified(clip.path.as_posix()))
        for clip in (listed.items[0].clips[role] for role in ("real", "source"))
    )
    extractor = Extractor(
        profile_card("compact"), WeightsStore.locate(), FeatureStore.locate(), faces="aligned"
    )
    extractor.ensure({output: frozenset({"landmarks"}), source: frozenset({"landmarks"})})
    return {"extractor": extractor, "output": output, "source": source}


@pytest.mark.parametrize("where", [*NOT_HERE.values(), *PYTHON.values()])
def test_a_rule_s_test_exists(where: str) -> None:
    assert not where.startswith("tests/") or (ROOT / where).is_file()


def test_every_rule_is_needed() -> None:
    commands = [
        command
        for page in PAGES
        for block in blocks((ROOT / page).read_text(encoding="utf-8"))
        if block.language in SHELL
        for command in commands_of(block.body)
    ]
    assert len(commands) > 80
    for rule in NOT_HERE:
        assert any(re.search(rule, command) for command in commands), rule


def test_a_wrong_command_or_an_unknown_program_is_found(demo: Demo) -> None:
    for line in ("spfem-bench evl", "spfem-bench eval --metod real"):
        with pytest.raises(Exception, match=r"evl|metod"):
            _check_line(line, demo)
    for line in (
        "frobnicate now",
        "make nothing",
        "python -m benchmarks.nothing",
        "pip install '.[x]'",
    ):
        with pytest.raises(AssertionError):
            _check_line(line, demo)
    with pytest.raises(AssertionError, match="no-such-clip"):
        demo.run("spfem-bench table no-such-clip.json")


def test_a_table_is_printed_before_the_next_protocol_is_scored(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make eval` relies on."""
    events: list[str] = []
    carry_out, runs_text = session.carry_out, evaluation.runs_text

    def scored(*plans: Any, **settings: Any) -> Iterator[RunRecord]:
        for record in carry_out(*plans, **settings):
            events.append(record.protocol.name)
            yield record

    def printed(records: list[RunRecord]) -> str:
        events.append("table")
        return runs_text(records)

    monkeypatch.setattr(session, "carry_out", scored)
    monkeypatch.setattr(evaluation, "runs_text", printed)
    demo.run("spfem-bench eval --method source --method real -q")
    assert events == ["demo-inter-id"] * 2 + ["table"] + ["demo-cross-id"] * 2 + ["table"]
