"""A trained mini-NED: its files, and the clips that it makes.

A model is ``NAME.safetensors`` (manipulator and renderer) and its record ``NAME.json``; all models
of a folder share ``face.safetensors`` (morphable model and estimator) with its own record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pydantic
import torch
from torch import nn

from spfem_bench.definitions.cards import Strict
from spfem_bench.errors import ClipError, WeightsError, unknown_name
from spfem_bench.networks import recorded
from spfem_bench.puppets.mini_ned.config import SHARED, MiniNedConfig, models
from spfem_bench.puppets.mini_ned.learn import cover, estimate_clip, scale_pixels
from spfem_bench.puppets.mini_ned.morphable import Coefficients, Morphable
from spfem_bench.puppets.mini_ned.networks import (
    Animator,
    Estimator,
    Manipulator,
    Renderer,
    Shift,
)

VERSION = 1  # raised when the same weights would make other frames
SIDE = 128  # of the frames that it takes and makes, in pixels


class ModelRecord(Strict):
    """The record of a training, beside its file of weights."""

    format: Literal[1] = 1  # of this record
    face: str = ""  # SHA-256 of the shared file that a model was trained with; empty for that file
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")  # of the weights
    bytes: int  # their size
    config: dict[str, Any]  # of the shared file, only its settings
    training: dict[str, Any]  # data, losses, time, software, commit and so on


def write_networks(
    path: Path, networks: Mapping[str, nn.Module], record: Mapping[str, Any]
) -> ModelRecord:
    """Write a file of weights, then its record with ``sha256`` and ``bytes`` added; return that."""
    return recorded.save_network(path, nn.ModuleDict(networks), ModelRecord, record)


def read_networks(path: Path, networks: Mapping[str, nn.Module]) -> ModelRecord:
    """Read checked weights into networks, in eval mode; raises WeightsError or CardError."""
    record = read_model_record(path)
    again = "Take both files from one training, or train with 'spfem-bench demo train-ned'"
    content = recorded.read_weights(path, record.sha256, again)
    every = nn.ModuleDict(networks)
    try:
        every.load_state_dict(recorded.tensors(content))
    except Exception as error:  # any bytes with the right hash may be here: several kinds
        reason = (str(error) or type(error).__name__).splitlines()[-1].strip()
        file = path.with_suffix(".safetensors")
        raise WeightsError(f"{file} holds no mini-NED: {reason[:120]}", again) from error
    every.eval().requires_grad_(False)
    return record


def read_model_record(path: Path) -> ModelRecord:
    """Read a record of weights; raises WeightsError if absent, CardError if invalid."""
    path = path.with_suffix(".json")
    try:
        return recorded.load_weights_record(path, ModelRecord, "a model")
    except OSError as error:
        problem = f"{path}: {error.strerror}: weights without their record are not used"
        remedy = "Put the two files side by side as the training left them"
        raise WeightsError(problem, remedy) from error


def trained_as(path: Path, config: MiniNedConfig) -> bool:
    """Return whether a model's record states a configuration; settings it lacks have defaults."""
    return MiniNedConfig.model_validate(read_model_record(path).config) == config


def model_path(name: str) -> Path:
    """Return where a model's record lies among the cards; raises UnknownNameError."""
    paths = models()
    if name not in paths:
        raise unknown_name("model of the demo", name, paths)
    return paths[name]


def identity(path: Path) -> dict[str, Any]:
    """Return what decides a model's outputs: this code's version and the hashes of both files."""
    shared = read_model_record(path.with_name(SHARED))
    return {"version": VERSION, "sha256": read_model_record(path).sha256, "face": shared.sha256}


class MiniNed(NamedTuple):
    """All four networks, frozen and in eval mode; those of a one-stage model in their places."""

    morphable: Morphable
    estimator: Estimator
    manipulator: Manipulator | Shift
    renderer: Renderer | Animator

    @classmethod
    def load(cls, path: Path) -> MiniNed:
        """Read a model and its shared file, hashes checked; raises WeightsError or CardError."""
        one_stage = read_model_record(path).config.get("animator")
        drawing = (Shift(), Animator()) if one_stage else (Manipulator(), Renderer())
        model = cls(Morphable(), Estimator(), *drawing)
        shared = path.with_name(SHARED)
        networks = model._asdict()
        known = read_networks(shared, {n: networks[n] for n in ("morphable", "estimator")})
        record = read_networks(path, {n: networks[n] for n in ("manipulator", "renderer")})
        if record.face != known.sha256:
            other = f"another {SHARED}.safetensors than {shared.parent} holds"
            remedy = "Put the one of its training beside it"
            raise WeightsError(f"{path} was trained with {other}", remedy)
        return model

    @torch.inference_mode()
    def estimate(self, clip: npt.NDArray[np.uint8]) -> Coefficients:
        """Return the coefficients of a clip, uint8 (T, 128, 128, 3), RGB; else ClipError."""
        if clip.shape[1:] != (SIDE, SIDE, 3) or not clip.shape[0]:
            raise ClipError(f"frames of shape {clip.shape}", f"Give (frames, {SIDE}, {SIDE}, 3)")
        return estimate_clip(self.estimator, _pictures(clip))

    def manipulate(
        self, source: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """Return a clip with the emotion of another; speech, head and all else stay its own.

        Clips are as :meth:`estimate` takes them; lengths and puppets may differ.
        """
        return self.redraw(source, self.estimate(source), self.estimate(reference))

    @torch.inference_mode()
    def redraw(
        self, source: npt.NDArray[np.uint8], face: Coefficients, other: Coefficients
    ) -> npt.NDArray[np.uint8]:
        """Return :meth:`manipulate`'s clip from both clips' coefficients."""
        frames = _pictures(source)
        style = self.manipulator.style(other.expression[None])
        target = face._replace(expression=self.manipulator(face.expression[None], style)[0])
        first = Coefficients(*(v[:1] for v in face))
        first_pictures = scale_pixels(frames[:1]), self.morphable.render(first)
        made = []
        for start in range(0, len(frames), 16):
            part = slice(start, start + 16)
            old, new = (Coefficients(*(v[part] for v in f)) for f in (face, target))
            if isinstance(self.renderer, Animator):
                made.append(self.renderer(self.morphable, new, scale_pixels(frames[part]), old))
                continue
            count = len(old.pose)
            before = Coefficients(*(v.expand(count, -1) for v in first))
            picture, render = (p.expand(count, -1, -1, -1) for p in first_pictures)
            background, hidden = scale_pixels(frames[part]), cover(self.morphable, new, old)
            made.append(
                self.renderer(self.morphable, background, new, picture, before, render, hidden)
            )
        pixels = (torch.cat(made) * 255).round().clamp(0, 255).byte()
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _pictures(clip: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
