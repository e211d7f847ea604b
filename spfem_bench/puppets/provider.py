"""The puppets as a provider of clips, registered when this module is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.provider import PROVIDERS, Holdings, Provider
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.controls import FadedControl, PerfectControl
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.protocols import Item
from spfem_bench.definitions.recordings import fill
from spfem_bench.errors import MissingClipError, UnknownNameError
from spfem_bench.progress import SILENT, Progress

if TYPE_CHECKING:
    from spfem_bench.datasets.pairs import EmotionPair
    from spfem_bench.puppets.world import World

_REFERENCE = "{reference_speaker}/{emotion}/1.00/{reference_sentence}.mp4"
GENERATED = "{model}/{speaker}/neutral/1.00/{sentence}/like/" + _REFERENCE  # what a model makes
FADED = "{speaker}/{emotion}/{intensity}/{sentence}.mp4"  # intensity: 0.00 to 1.00
PERFECT = "{speaker}/neutral/1.00/{sentence}/as/{emotion}/1.00.mp4"  # the source's performance


@PROVIDERS.register("puppets")
class Puppets(Provider):
    """Shipped takes, takes that are drawn when needed, and clips that models make of takes."""

    makes_clips = True
    has_exact_pairs = True

    @cached_property
    def world(self) -> World:
        """The world that the card describes."""
        from spfem_bench.puppets.world import World

        if self.card.world is None:
            raise ValueError(f"{self.card.name} has no world")
        return World(**self.card.world.model_dump())

    @property
    def folder(self) -> Path:
        """Where clips go that are drawn or generated."""
        return self.places.generated / self.world.name

    def verified(self, name: str) -> Path:
        """Return a clip's path, shipped or made before; raises MissingClipError or ClipError."""
        from spfem_bench.puppets.mini_ned.clips import present

        path = present(self.world, self.folder, name)
        if path is None:
            problem = f"{self.card.name}/{name}: not rendered"
            raise MissingClipError(problem, "Run the command again")
        return path

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Return the takes to draw, then the clips that models make of them."""
        from spfem_bench.puppets.mini_ned.clips import lacking

        return lacking(self.world, self.folder, list(names))

    def make(self, names: Sequence[str], progress: Progress = SILENT) -> None:
        """Draw takes, then generate what models make of them."""
        from spfem_bench.puppets.clips import render_all
        from spfem_bench.puppets.mini_ned.clips import made_clip, make_all

        takes = [name for name in names if not made_clip(name)]
        made = [name for name in names if made_clip(name)]
        progress.begin("render", len(names), "clip")
        render_all(self.world, self.folder, takes, progress=progress)
        if made:
            make_all(self.world, self.folder, made, progress)
        progress.end("render")

    def methods(self, item: Item) -> Mapping[str, MethodCard]:
        """Return mini-NED's trained models: the shipped ones, and those in the user's cards."""
        try:
            fill(GENERATED, {**item.row, "model": ""})
        except UnknownNameError:  # a list without the columns that say which takes
            return {}
        return {card.name: card for card in self._by_model.values()}

    @cached_property
    def _by_model(self) -> Mapping[str, MethodCard]:
        from spfem_bench.puppets.mini_ned.config import models

        cards = [method_card(name) for name in names(Kind.METHOD)]
        toys = {card.stands_for: card for card in cards if card.stands_for}
        taken = {name for card in cards for name in (card.name, *card.aliases)}
        by_model = {}
        for model, path in models().items():
            name = f"mini-{model}" if model in taken else model
            label, page = f"mini-NED ({model})", "docs/plug_and_play.md"
            own = MethodCard(name=name, title=name, label=label, link=page, path=path)
            by_model[model] = toys.get(model, own)
        return by_model

    def _model(self, method: str) -> str:
        return next(model for model, card in self._by_model.items() if card.name == method)

    def output(self, method: str, item: Item) -> Clip:
        """Return the address of what a model makes of an item; UnknownNameError if columns lack."""
        return _address(GENERATED, {**item.row, "model": self._model(method)})

    def identity(self, method: str) -> Mapping[str, Any]:
        """Return the code's version and the hashes of a model's weights."""
        from spfem_bench.puppets.mini_ned.model import identity, model_path

        return identity(model_path(self._model(method)))

    def control_clip(self, control: PerfectControl | FadedControl, item: Item) -> Clip | None:
        """Return a take of less emotion, or the source with the target's emotion."""
        try:
            if isinstance(control, PerfectControl):
                return _address(PERFECT, item.row)
            return _address(FADED, {**item.row, "intensity": f"{control.level:.2f}"})
        except UnknownNameError:  # a list without the columns that say which takes
            return None

    def exact_pair(self, item: Item) -> EmotionPair | None:
        """Return both takes, whose correspondence follows from their phones."""
        from spfem_bench.datasets.pairs import EmotionPair
        from spfem_bench.puppets.clips import take_of
        from spfem_bench.puppets.pairs import Puppet, true_frames

        if "real" not in item.clips:
            return None
        paths = (item.clips[role].path for role in ("source", "real"))
        source, real = (take_of(self.world, path.as_posix()) for path in paths)
        if source.emotion == real.emotion:
            return None
        frames = true_frames(source, real)
        return EmotionPair(item.speaker, item.emotion, Puppet(source), Puppet(real), frames)

    def holdings(self) -> Holdings:
        """Return how many of the shipped clips are here."""
        origin = "shipped" if self.card.files else "drawn when needed"
        return replace(super().holdings(), origin=origin)

    def how_to_get(self) -> str:
        """Return that nothing is to be got."""
        return "nothing to fetch, its clips are shipped or drawn"


def demo_puppets(folders: DataFolders) -> Puppets:
    """Return the provider of the demo's data set."""
    card = dataset_card("puppets")
    return Puppets(card, folders.places(card))


def _address(template: str, row: Mapping[str, str]) -> Clip:
    clip = Clip.parse(fill(template, row))
    clip.within(Path())  # refuses names that leave the folder of clips
    return clip
