"""The puppets' speech: phonemes, sentences, timing, and the mouth's movement.

One track of phones drives both mouth (:func:`visemes`) and sound, so lip sync is true by
construction; a sentence has the same phones in every reading, so alignments are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.puppets.tables import numbers, read_table

_Floats = npt.NDArray[np.float64]
VISEMES = ("jaw", "width", "rounding", "closure", "teeth", "tongue")
"""Movements of the mouth, 0 to 1, ``width`` from -1; lips part by ``jaw * (1 - closure)``."""

SILENCE = "sil"
LABIALS = frozenset("pbm")  # phonemes for which the lips must meet


@dataclass(frozen=True)
class Phoneme:
    """Sound and mouth of a phoneme when it is held."""

    kind: str  # vowel, approximant, nasal, fricative, stop, affricate or silence
    duration: float  # seconds, spoken neutrally inside a phrase
    formants: tuple[float, ...]  # F1 to F3 of an adult male tract, Hz; a consonant's are its loci
    bandwidths: tuple[float, ...]  # of F1 to F3, Hz
    viseme: tuple[float, ...]  # target of each of :data:`VISEMES`
    insistence: tuple[float, ...]  # strength of each target against the neighbours'
    voicing: float  # amplitude of the vocal folds against a vowel's, 0 to 1
    noise: tuple[float, ...] | None  # dB against a vowel, centre and width (Hz), friction or burst
    glide: str  # the phoneme at a diphthong's end, or nothing


_BANDWIDTHS = {"vowel": (60.0, 90.0, 150.0), "nasal": (90.0, 220.0, 280.0)}


def _phonemes() -> MappingProxyType[str, Phoneme]:
    """Read phonemes.csv (Peterson and Barney, 1952, men; Klatt, 1980); visemes in per cent."""
    holds = {row["hold"]: tuple(numbers(row).values()) for row in read_table("holds")}
    phonemes = {}
    for row in read_table("phonemes"):
        noise_columns = ("noise_db", "noise_centre", "noise_width") if row["noise_db"] else ()
        phonemes[row["symbol"]] = Phoneme(
            kind=row["kind"],
            duration=float(row["milliseconds"]) / 1000,
            formants=tuple(float(row[f]) for f in ("f1", "f2", "f3")),
            bandwidths=_BANDWIDTHS.get(row["kind"], (75.0, 110.0, 170.0)),
            viseme=tuple(float(row[viseme]) / 100 for viseme in VISEMES),
            insistence=holds[row["hold"]],
            voicing=float(row["voicing"]) / 100,
            noise=tuple(float(row[column]) for column in noise_columns) or None,
            glide=row["glide"],
        )
    return MappingProxyType(phonemes)


PHONEMES = _phonemes()  # the inventory by symbol (ARPAbet's, lower case), silence among it


@dataclass(frozen=True)
class Phone:
    """One phoneme of one reading; times are seconds from the clip's beginning."""

    symbol: str
    start: float
    end: float

    @property
    def phoneme(self) -> Phoneme:
        """Its entry in :data:`PHONEMES`."""
        return PHONEMES[self.symbol]

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Sentence:
    """A sentence to be spoken."""

    name: str
    text: str
    phones: tuple[str, ...]  # symbols; silence first, last, and perhaps a pause within
    paired: bool  # whether training speakers speak it in every emotion
    split: str  # train or test


def _sentences() -> tuple[Sentence, ...]:
    """Read sentences.csv; ``|`` in its phones is where a speaker may pause."""
    sentences = []
    for row in read_table("sentences"):
        phones = (SILENCE, *row["phones"].replace("|", SILENCE).split(), SILENCE)
        paired = row["paired"] == "yes"
        sentences.append(Sentence(row["name"], row["text"], phones, paired, row["split"]))
    return tuple(sentences)


SENTENCES = _sentences()  # thirty sentences: 001 to 003 paired, 028 to 030 for tests only


@dataclass(frozen=True)
class Manner:
    """How an emotion changes speech, against the same speaker's neutral speech."""

    pitch: float = 1.0  # factor of the mean fundamental frequency
    pitch_range: float = 1.0  # factor of its excursions, in semitones
    energy: float = 0.0  # added, dB
    rate: float = 1.0  # factor of the speaking rate
    breathiness: float = 0.0  # added to the voice's; it may be negative (pressed)
    vowel_length: float = 1.0  # further factor of the vowels' durations
    jaw: float = 1.0  # factor of the jaw's opening


# Directions from Banse and Scherer (1996) and Juslin and Laukka (2003).
_FULL = {row["emotion"]: Manner(**numbers(row)) for row in read_table("manners")}


def manner(emotion: str, intensity: float) -> Manner:
    """Return a manner, linear from 0 (neutral) to 1; raises UnknownNameError or CardError."""
    if emotion not in _FULL:
        raise unknown_name("emotion", emotion, EMOTIONS)
    if not (math.isfinite(intensity) and 0 <= intensity <= 1):
        problem = f"intensity {intensity} of emotion '{emotion}' is not between 0 and 1"
        raise CardError(problem, "Give a number from 0 (neutral) to 1 (full)")
    both = zip(astuple(Manner()), astuple(_FULL[emotion]), strict=True)
    return Manner(*((1 - intensity) * neutral + intensity * full for neutral, full in both))


# How much of a change of pace each kind takes up: vowels stretch, closures hardly
# (Gay, 1981), which is why two readings are not a uniform stretch of each other.
_ELASTICITY = {"vowel": 1.3, "approximant": 0.9, "nasal": 0.7, "fricative": 0.7}
_STIFF = 0.35


def time_phones(
    sentence: Sentence, manner: Manner, rate: float, rng: np.random.Generator
) -> tuple[Phone, ...]:
    """Return a reading of a sentence: one phone per symbol, without gaps, from 0 s on.

    The end of the last word is longer (Klatt, 1976), durations vary by about 8 %, both ends have
    0.16 to 0.30 s of silence, one reading of three has a pause. *rate* is 1 on average.
    """
    pace = rate * manner.rate
    kinds = [PHONEMES[symbol].kind for symbol in sentence.phones]
    last_vowel = max((k for k, kind in enumerate(kinds) if kind == "vowel"), default=0)
    # Drawn for all phones whatever their kind, so that readings differ by manner only.
    jitter = np.exp(0.08 * np.clip(rng.standard_normal(len(kinds)), -2, 2))
    first, end = rng.uniform(0.16, 0.30, 2)
    pauses = np.where(rng.random(len(kinds)) < 0.3, rng.uniform(0.06, 0.16, len(kinds)), 0.0)
    now, phones = 0.0, []
    for k, (symbol, kind) in enumerate(zip(sentence.phones, kinds, strict=True)):
        if kind == "silence":
            length = first if k == 0 else end if k == len(kinds) - 1 else pauses[k] / pace
        else:
            length = PHONEMES[symbol].duration * jitter[k] * pace ** -_ELASTICITY.get(kind, _STIFF)
            length *= manner.vowel_length if kind == "vowel" else 1.0
            length *= 1.3 if k == last_vowel else 1.15 if k > last_vowel else 1.0
        phones.append(Phone(symbol, now, now + float(length)))
        now = phones[-1].end
    return tuple(phones)


def correspondence(a: Sequence[Phone], b: Sequence[Phone], times: npt.ArrayLike) -> _Floats:
    """Return the times in reading *b* that correspond to times in *a*: float64, never decreasing.

    Linear within each phone; times outside *a* go to the ends of *b*. Raises CardError for readings
    of different sentences.
    """
    if not a or [phone.symbol for phone in a] != [phone.symbol for phone in b]:
        raise CardError("readings of different sentences", "Give two readings of one sentence")
    knots_a, knots_b = ([p.start for p in reading] + [reading[-1].end] for reading in (a, b))
    return np.asarray(np.interp(np.asarray(times, np.float64), knots_a, knots_b))


# Seconds in which a phone's hold on each viseme falls by e before and after it. The lips
# round early and are slow to let go; they close and part fast.
_AHEAD = np.array([0.035, 0.045, 0.100, 0.020, 0.035, 0.030])
_BEHIND = np.array([0.035, 0.040, 0.050, 0.020, 0.035, 0.030])


def visemes(
    phones: Sequence[Phone], n_frames: int, frame_rate: float = 25.0, amplitude: float = 1.0
) -> _Floats:
    """Return the mouth's movements: float64 (n_frames, 6), columns as :data:`VISEMES`.

    Frame i shows time ``(i + 0.5) / frame_rate``. Coarticulation after Cohen and Massaro (1993):
    targets weighted by insistence, which falls exponentially with time. In the frame nearest to the
    centre of p, b and m the lips are closed. *amplitude* is :attr:`Manner.jaw`.
    """
    targets, strength, cores = [], [], []
    for phone in phones:
        phoneme, length = phone.phoneme, phone.length
        held = [(phoneme, 0.25, 0.75)]
        if phoneme.glide:  # a diphthong is held twice: itself early, its glide late
            held = [(phoneme, 0.1, 0.4), (PHONEMES[phoneme.glide], 0.75, 0.9)]
        for target, begin, end in held:
            targets.append(target.viseme)
            strength.append([hold * min(1.0, length / 0.03) for hold in phoneme.insistence])
            cores.append((phone.start + begin * length, phone.start + end * length))
    core = np.array(cores)
    core[0, 0], core[-1, 1] = -np.inf, np.inf  # the ends go on outside the reading

    moments = (np.arange(n_frames) + 0.5) / frame_rate
    before = np.maximum(core[None, :, :1] - moments[:, None, None], 0)  # (frames, held, 1)
    after = np.maximum(moments[:, None, None] - core[None, :, 1:], 0)
    # In logarithms, so that far from all phones the nearest still decides.
    hold = np.log(np.array(strength) + 1e-9) - before / _AHEAD - after / _BEHIND
    hold = np.exp(hold - hold.max(axis=1, keepdims=True))
    mouth = (hold * np.array(targets)).sum(axis=1) / hold.sum(axis=1)

    for phone in phones:
        nearest = math.floor((phone.start + phone.end) / 2 * frame_rate)
        if phone.symbol in LABIALS and 0 <= nearest < n_frames:
            width = max(0.4 * phone.length, 0.02)
            press = np.exp(-0.5 * ((moments - moments[nearest]) / width) ** 2)
            mouth[:, 3] = np.maximum(mouth[:, 3], press)
    mouth[:, 0] *= amplitude
    return np.asarray(np.clip(mouth, np.array([0, -1, 0, 0, 0, 0]), 1))
