"""Which controls a protocol has, and the clip that each puts in an item's output's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.provider import Provider
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.controls import (
    ClipControl,
    EditControl,
    FadedControl,
    GradedControl,
    OtherSpeakerControl,
    PerfectControl,
)
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import Item, Protocol
from spfem_bench.errors import CardError, ClipError, UnsuitedClipError


def controls(protocol: Protocol) -> list[MethodCard]:
    """Return the controls that a protocol has the clips for, clips as they are first."""
    cards = map(method_card, names(Kind.METHOD))
    found = [card for card in cards if card.control and not why_not(card, protocol)]
    return sorted(found, key=lambda card: isinstance(card.control, GradedControl))


def methods_with_clips(protocol: Protocol) -> list[str]:
    """Return the methods and controls that can be scored on a protocol without own videos."""
    made = _provider(protocol).methods(protocol.items[0])
    return [*protocol.card.outputs, *made, *(control.name for control in controls(protocol))]


def why_not(method: MethodCard, protocol: Protocol) -> str:
    """Return why a protocol cannot have a control; empty when it can."""
    control = method.control
    if control is None:
        return f"'{method.name}' is no control"
    if isinstance(control, PerfectControl):
        if _provider(protocol).control_clip(control, protocol.items[0]):
            return ""
        return f"what a perfect output in the protocol '{protocol.name}' looks like is not known"
    wanted = control.clip if isinstance(control, ClipControl) else "real"
    if wanted not in protocol.card.clips:
        return f"the protocol '{protocol.name}' has no {wanted} clips"
    if isinstance(control, EditControl):
        uses_sound = any(metric_card(m).role == "sync" for m in protocol.card.metrics)
        if control.edit == "shifted-audio" and not uses_sound:
            return f"no metric of the protocol '{protocol.name}' hears the sound"
    elif isinstance(control, OtherSpeakerControl):
        if all(len(speakers) < 2 for speakers in _by_speaker(protocol).values()):
            return f"in the protocol '{protocol.name}' no two speakers have an emotion in common"
    elif isinstance(control, FadedControl) and not _provider(protocol).control_clip(
        control, protocol.items[0]
    ):
        return f"the protocol '{protocol.name}' has no clips in graded intensities"
    return ""


def _provider(protocol: Protocol) -> Provider:
    return DataFolders.locate().provider(protocol.dataset)


def at_level(method: MethodCard, level: float) -> MethodCard:
    """Return a control's card with another level.

    Raises CardError when it is no graded control, or has no such level.
    """
    control = method.control
    if not isinstance(control, GradedControl):
        raise CardError(f"'{method.name}' has no levels", "Leave the level out")
    try:
        graded = type(control).model_validate(control.model_dump() | {"level": level})
    except ValueError:
        allowed = ", ".join(f"{v:g}" for v in control.levels)
        raise CardError(
            f"the control '{method.name}' has no level {level:g}", f"Its card names {allowed}"
        ) from None
    return method.model_copy(update={"control": graded})


def control_outputs(method: MethodCard, protocol: Protocol) -> Mapping[str, Clip | ClipError]:
    """Return each item's clip in the output's place, below the data set, or why there is none.

    A control made of real clips has no items without one: each real clip is scored once.
    """
    control, items = method.control, protocol.items
    if control is None:
        raise ValueError(f"'{method.name}' is no control")
    if isinstance(control, ClipControl):
        return {i.id: i.clips[control.clip] for i in items if control.clip in i.clips}
    if isinstance(control, EditControl):
        edit = Edit(control.edit, control.level)
        return {i.id: _edited(i.clips["real"], edit) for i in items if "real" in i.clips}
    if isinstance(control, OtherSpeakerControl):
        return _other_speakers(protocol, control.level)
    provider = _provider(protocol)
    clips = {i.id: provider.control_clip(control, i) for i in items}
    lacking = UnsuitedClipError(f"'{protocol.card.dataset}' has no clip for '{method.name}'")
    return {item: clip or lacking for item, clip in clips.items()}


def _edited(clip: Clip, edit: Edit) -> Clip | ClipError:
    if clip.edit is not None:
        return UnsuitedClipError(f"{clip}: edited already", "Controls edit clips that are not")
    # An edit that changes nothing is left away: the features of the clip itself serve.
    return clip if edit.changes_nothing else replace(clip, edit=edit)


def _by_speaker(protocol: Protocol) -> dict[str, dict[str, list[Item]]]:
    """Return each emotion's speakers in order of their names, each with the items.

    Items without a real clip are left out.
    """
    found: dict[str, dict[str, list[Item]]] = {e: {} for e in protocol.card.emotions}
    for item in sorted(protocol.items, key=lambda i: i.speaker):  # keeps the list's order else
        if "real" in item.clips:
            found[item.emotion].setdefault(item.speaker, []).append(item)
    return found


def _other_speakers(protocol: Protocol, share: float) -> dict[str, Clip | ClipError]:
    """Replace a share of each emotion's items by clips of one other speaker: the first by name.

    That speaker's own are replaced by the second's. FAD pools an emotion's clips, so it could not
    measure an exchange. Items without another speaker are refused at every level, for equal sets.
    """
    outputs: dict[str, Clip | ClipError] = {}
    for emotion, speakers in _by_speaker(protocol).items():
        ordered = [(k, item) for items in speakers.values() for k, item in enumerate(items)]
        replaced = set(_spread(len(ordered), share))
        for n, (k, item) in enumerate(ordered):
            others = next((own for name, own in speakers.items() if name != item.speaker), None)
            if others is None:
                outputs[item.id] = UnsuitedClipError(
                    f"no other speaker than {item.speaker} has '{emotion}' in '{protocol.name}'",
                    "Nobody can stand in for this item",
                )
            else:  # a speaker's k-th item gets the other's, from the beginning again if fewer
                chosen = others[k % len(others)] if n in replaced else item
                outputs[item.id] = chosen.clips["real"]
    return outputs


def _spread(count: int, share: float) -> Sequence[int]:
    """Choose a share of the numbers below *count*, evenly, by the van der Corput sequence.

    >>> [sorted(_spread(4, share)) for share in (0.25, 0.5, 0.75, 1)]
    [[0], [0, 2], [0, 1, 2], [0, 1, 2, 3]]
    """
    bits = max(1, (count - 1).bit_length())
    order = sorted(range(count), key=lambda n: f"{n:0{bits}b}"[::-1])
    return order[: int(share * count + 0.5)]
