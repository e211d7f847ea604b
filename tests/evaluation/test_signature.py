"""A signature changes with everything that can move a number, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.definitions.cards import Strict
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import ProtocolCard, protocol
from spfem_bench.evaluation.signature import metric_settings, signature
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore

METRICS = ("fad", "csim", "id-sim", "lse-d", "lse-c", "av-offset", "scc", "tcc")


def extractor(**changes: Any) -> Extractor:
    return Extractor(
        profile_card("light"), WeightsStore(), FeatureStore(Path("nowhere")), **changes
    )


def frozen(metric: str = "fad") -> dict[str, Any]:
    return metric_settings(metric_card(metric), protocol("stccl-page-ned"), extractor())


def sign(values: dict[str, Any]) -> str:
    return signature(values, "light", ["a"], 1)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every plain value in nested settings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value}?"


@pytest.mark.parametrize("metric", METRICS)
def test_every_setting_moves_the_signature(metric: str) -> None:
    before = frozen(metric)
    places = list(leaves(before))
    assert len(places) > 40
    for place in places:
        after = json.loads(json.dumps(before))
        inner = after
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = changed(inner[place[-1]])
        assert sign(after) != sign(before), place


def models(of: Strict) -> Iterator[Strict]:
    yield of
    for name in type(of).model_fields:
        value = getattr(of, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Strict):
                yield from models(inner)


def every_model() -> list[Strict]:
    profile = profile_card("light")
    cards: list[Strict] = [metric_card(m) for m in METRICS]
    cards += [profile.network(r) for r in ("detector", "identity", "expression", "sync")]
    cards += [profile.faces, protocol("stccl-page-ned").card]
    return [m for card in cards for m in models(card)]


def test_every_field_is_in_the_signature_or_on_the_neutral_list() -> None:
    """A field added to a card's model tomorrow is caught here."""
    for model in every_model():
        fields = set(type(model).model_fields)
        in_settings = set(model.settings())
        absent = {name for name in model.later if getattr(model, name) is None}
        assert in_settings == fields - model.score_neutral - absent, type(model).__name__
        assert model.score_neutral <= fields, type(model).__name__


# What no score depends on, and why; a field leaves or joins this list on purpose only.
NEUTRAL = {
    "title": "words",
    "description": "words",
    "notes": "words",
    "citation": "words",
    "references": "words",
    "licence": "words",
    "source": "words: the hash pins the bytes",
    "path": "where the card lies",
    "label": "printed name",
    "direction": "decides bold face only",
    "range": "for readers",
    "unit": "for readers",
    "hides": "words",
    "shows": "words",
    "claims": "what is put to the test",
    "git_blob": "the hash pins the bytes",
    "member": "the hash pins the bytes",
    "page": "the hash pins the bytes",
    "url": "the hash pins the bytes",
    "bytes": "the hash pins them",
    "outputs": "which published clips exist; which one is scored is the method",
    "profile": "which networks are used when none are asked for; those used are in the signature",
    "output_name": "a file's name",
    "published": "rows shown beside",
    "not_applicable": "metrics that are not computed",
    "metrics": "which are computed",
    "on_request": "which are computed when they are named",
    "items": "the list's name; its content is hashed",
    "solve": "how the list is found; its content is hashed",
    "variant_of": "which published numbers are shown beside",
}


def test_the_neutral_list_has_a_reason_for_each_field() -> None:
    listed = {name for model in every_model() for name in model.score_neutral}
    assert listed - {"name"} == NEUTRAL.keys()
    # A pinned file's name is neutral; a card's name never is.
    assert "name" not in ProtocolCard.score_neutral


def test_batch_size_and_device_are_neutral_and_faces_and_decoder_are_not() -> None:
    card, items = metric_card("fad"), protocol("stccl-page-ned")
    before = metric_settings(card, items, extractor())
    assert metric_settings(card, items, extractor(batch_size=5, device="cuda")) == before
    for other in ({"faces": "aligned"}, {"hwaccel": "cuda"}):
        assert sign(metric_settings(card, items, extractor(**other))) != sign(before)


def test_half_precision_is_in_the_signature_of_what_it_moves() -> None:
    items = protocol("stccl-page-ned")
    for name in ("fad", "lse-d"):
        whole = metric_settings(metric_card(name), items, extractor())
        half = metric_settings(metric_card(name), items, extractor(precision="bfloat16"))
        assert "|bfloat16|#" in sign(half) and "float" not in sign(whole)
        assert sign(half).rpartition("#")[2] != sign(whole).rpartition("#")[2]
    # ONNX files run as they are.
    official = replace(extractor(), profile=profile_card("official"))
    whole = metric_settings(metric_card("fad"), items, official)
    half = metric_settings(metric_card("fad"), items, replace(official, precision="bfloat16"))
    assert half == whole


def test_partial_scores_compare_only_over_the_same_items() -> None:
    values = frozen()
    whole = signature(values, "light", ["a", "b", "c"], 3)
    ab, ac, ba = (
        signature(values, "light", ids, 3) for ids in (["a", "b"], ["a", "c"], ["b", "a"])
    )
    assert len({whole, ab, ac}) == 3
    assert ab == ba
    assert "partial:2of3" in ab and "partial" not in whole


def test_the_signature_can_be_read() -> None:
    parts = sign(frozen()).split("|")
    assert parts[:4] == ["fad:2", "stccl-page-ned:1", "light", "mobilefacenet@e839247c"]
    assert "faces:detect" in parts and "25fps" in parts
    assert parts[-1].startswith("#")
