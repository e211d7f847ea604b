"""What the puppets say: phonemes, sentences, timing, and what the mouth does meanwhile.

One track of phones drives both the drawn mouth (:func:`visemes`) and the sound
(:mod:`spfem_bench.puppets.voice`), so lip sync is true by construction. A sentence has
the same phones in every reading, so the alignment of two readings is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError, unknown_name

Floats = npt.NDArray[np.float64]
Kind = Literal["vowel", "approximant", "nasal", "fricative", "stop", "affricate", "silence"]

VISEMES = ("jaw", "width", "rounding", "closure", "teeth", "tongue")
"""What the mouth does, by column of :func:`visemes`.

``jaw``: opening, 0 to 1. ``width``: lips from -1 (narrow) to 1 (spread). ``rounding``:
and protrusion, 0 to 1. ``closure``: lips pressed together, 0 to 1; they part by
``jaw * (1 - closure)``. ``teeth``: upper teeth seen, 0 to 1 (on the lower lip when the
jaw is high, as for f). ``tongue``: tip at the upper teeth, 0 to 1.
"""

SILENCE = "sil"

LABIALS = frozenset("pbm")
"""Phonemes for which the lips must meet."""


@dataclass(frozen=True)
class Phoneme:
    """How a phoneme sounds and looks when it is held.

    Attributes:
        kind: manner of articulation.
        duration: seconds, spoken neutrally inside a phrase.
        formants: (3,) F1 to F3 of an adult male tract, Hz; a consonant's are its loci.
        bandwidths: (3,) of F1 to F3, Hz.
        viseme: (6,) target of each of :data:`VISEMES`.
        insistence: (6,) how strongly it holds to each target against its neighbours.
        voicing: amplitude of the vocal folds against a vowel's, 0 to 1.
        noise: level (dB against a vowel), centre and width (Hz) of friction or burst.
        glide: the phoneme that a diphthong ends as, or nothing.
    """

    kind: Kind
    duration: float
    formants: tuple[float, ...]
    bandwidths: tuple[float, ...]
    viseme: tuple[float, ...]
    insistence: tuple[float, ...]
    voicing: float
    noise: tuple[float, ...] | None
    glide: str


# By what makes the sound: how strongly jaw, width, rounding, closure, teeth, tongue are held.
_INSISTENCE = {
    "open": (1.2, 0.8, 0.8, 1.0, 0.5, 0.5),
    "round": (1.0, 1.2, 2.0, 1.0, 0.6, 0.4),
    "lips": (2.0, 0.15, 0.15, 4.5, 0.8, 0.3),
    "bite": (1.2, 0.4, 0.3, 1.5, 3.0, 0.4),
    "hiss": (1.5, 0.4, 0.5, 1.0, 1.6, 0.6),
    "tip": (0.8, 0.2, 0.15, 0.9, 0.6, 2.0),
    "back": (0.45, 0.12, 0.12, 0.6, 0.2, 0.4),
    "rest": (1.0, 0.6, 0.5, 1.2, 0.8, 0.5),
}

_BANDWIDTHS = {"vowel": (60.0, 90.0, 150.0), "nasal": (90.0, 220.0, 280.0)}

# Vowels' formants: Peterson and Barney (1952), men. Loci and noise: after Klatt (1980).
# Columns: symbol, kind, ms | F1 F2 F3 | jaw width rounding closure teeth tongue, in % |
# insistence, voicing in % | noise: dB, centre, width in Hz, or - | glide.
_TABLE = """
iy vowel       100 | 270 2290 3010 | 28  90   0   0 40  10 | open  100 | - |
ih vowel        75 | 390 1990 2550 | 42  50   0   0 30  10 | open  100 | - |
eh vowel        90 | 530 1840 2480 | 65  45   0   0 25  10 | open  100 | - |
ae vowel       115 | 660 1720 2410 | 90  55   0   0 25   0 | open  100 | - |
aa vowel       120 | 730 1090 2440 |100   5   0   0 10   0 | open  100 | - |
ah vowel        85 | 640 1190 2390 | 75   5   0   0 10   0 | open  100 | - |
ao vowel       120 | 570  840 2410 | 80 -40  60   0  5   0 | round 100 | - |
uh vowel        75 | 440 1020 2240 | 42 -45  60   0  5   0 | round 100 | - |
uw vowel       110 | 300  870 2240 | 30 -90 100   0  0   0 | round 100 | - |
er vowel       105 | 490 1350 1690 | 45 -25  45   0 15  10 | open  100 | - |
ax vowel        50 | 500 1450 2450 | 42   5   5   0 15  10 | open   90 | - |
ey vowel       120 | 480 1900 2500 | 60  60   0   0 30  10 | open  100 | - | iy
ay vowel       135 | 710 1150 2440 | 95  15   0   0 15   0 | open  100 | - | ih
aw vowel       140 | 700 1200 2430 | 95   5   0   0 10   0 | open  100 | - | uh
ow vowel       125 | 520  900 2400 | 70 -45  70   0  0   0 | round 100 | - | uw
oy vowel       145 | 560  850 2400 | 75 -50  70   0  0   0 | round 100 | - | ih
l  approximant  60 | 360 1150 2700 | 35  10   0   0 20  90 | tip    55 | - |
r  approximant  60 | 360 1150 1550 | 28 -35  50   0 15  10 | back   50 | - |
w  approximant  65 | 290  660 2200 | 15 -95 100  15  0   0 | round  45 | - |
y  approximant  60 | 270 2200 2950 | 22  70   0   0 35  10 | back   45 | - |
m  nasal        70 | 250 1000 2200 |  8   0  10 100  0   0 | lips   14 | - |
n  nasal        60 | 250 1600 2600 | 22  15   0   0 30 100 | tip    18 | - |
ng nasal        70 | 250 2000 2500 | 28  15   0   0 20   0 | back   18 | - |
f  fricative    90 | 320 1100 2200 | 12  15   0   0 90   0 | bite    0 | -24 4500 5000 |
v  fricative    60 | 280 1100 2200 | 12  10   0   0 90   0 | bite   18 | -28 4500 5000 |
th fricative    85 | 320 1350 2550 | 18  15   0   0 50 100 | tip     0 | -25 5500 4000 |
dh fricative    45 | 280 1350 2550 | 20  10   0   0 45 100 | tip    22 | -30 5500 4000 |
s  fricative    95 | 320 1600 2600 |  8  40   0   0 90  20 | hiss    0 | -13 5600 1800 |
z  fricative    70 | 270 1600 2600 |  8  40   0   0 90  20 | hiss   15 | -17 5600 1800 |
sh fricative   100 | 320 1750 2500 | 12 -35  65   0 75   0 | hiss    0 | -11 3200 1500 |
zh fricative    70 | 280 1750 2500 | 12 -35  65   0 75   0 | hiss   15 | -15 3200 1500 |
hh fricative    60 | 500 1450 2450 | 45   0   0   0 10   0 | back    0 | - |
p  stop         85 | 300  900 2200 |  6   0   5 100  0   0 | lips    0 | -16  900 1200 |
b  stop         70 | 220  900 2200 |  6   0   5 100  0   0 | lips    5 | -20  900 1200 |
t  stop         80 | 300 1750 2650 | 15  15   0   0 45 100 | tip     0 |  -8 4300 2500 |
d  stop         60 | 220 1750 2650 | 16  15   0   0 45 100 | tip     5 | -13 4000 2500 |
k  stop         85 | 300 1900 2300 | 28   5   0   0 10   0 | back    0 | -10 1900  900 |
g  stop         70 | 220 1900 2300 | 28   5   0   0 10   0 | back    5 | -15 1900  900 |
ch affricate   115 | 300 1750 2500 | 10 -35  65   0 75  50 | hiss    0 | -11 3200 1500 |
jh affricate    90 | 240 1750 2500 | 10 -35  65   0 75  50 | hiss    5 | -15 3200 1500 |
sil silence     60 | 500 1500 2500 |  0   0   5  30  0   0 | rest    0 | - |
"""


def _phonemes() -> MappingProxyType[str, Phoneme]:
    read = {}
    for row in _TABLE.strip().splitlines():
        cells = [cell.split() for cell in row.split("|")]
        (symbol, name, milliseconds), formants, viseme, (insist, voicing), noise, glide = cells
        kind: Kind = next(k for k in get_args(Kind) if k == name)
        read[symbol] = Phoneme(
            kind=kind,
            duration=float(milliseconds) / 1000,
            formants=tuple(map(float, formants)),
            bandwidths=_BANDWIDTHS.get(kind, (75.0, 110.0, 170.0)),
            viseme=tuple(float(percent) / 100 for percent in viseme),
            insistence=_INSISTENCE[insist],
            voicing=float(voicing) / 100,
            noise=None if noise == ["-"] else tuple(map(float, noise)),
            glide=glide[0] if glide else "",
        )
    return MappingProxyType(read)


PHONEMES = _phonemes()
"""The inventory by symbol (ARPAbet's, lower case), silence among it."""


@dataclass(frozen=True)
class Phone:
    """One phoneme of one reading.

    Attributes:
        symbol: key of :data:`PHONEMES`.
        start: seconds from the clip's beginning.
        end: seconds, never before the start.
    """

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Sentence:
    """A sentence to be spoken.

    Attributes:
        name: three digits.
        text: as written.
        phones: symbols, silence first and last, perhaps with one optional pause within.
        paired: spoken in every emotion.
        split: what it may be used for.
    """

    name: str
    text: str
    phones: tuple[str, ...]
    paired: bool
    split: Literal["train", "test"]


# Text, then its phones; "|" is where a speaker may pause.
_SENTENCES = """
My brother bought a warm blue coat. / m ay b r ah dh er | b ao t ax w ao r m b l uw k ow t
She keeps five apples by the window. / sh iy k iy p s f ay v ae p ax l z | b ay dh ax w ih n d ow
Tom will move the old piano today. / t aa m w ih l m uw v dh iy ow l d p iy ae n ow | t ax d ey
We found a green jacket near home. / w iy f aw n d ax g r iy n jh ae k ih t | n ih r hh ow m
Nobody heard the rain this morning. / n ow b aa d iy hh er d dh ax r ey n | dh ih s m ao r n ih ng
Put the paper on my chair. / p uh t dh ax p ey p er | aa n m ay ch eh r
Five tall boys threw a ball. / f ay v t ao l b oy z | th r uw ax b ao l
The garden smells of fresh mint. / dh ax g aa r d ax n s m eh l z | ah v f r eh sh m ih n t
Why should Grandma wait for us? / w ay sh uh d g r ae m aa | w ey t f ao r ah s
Her voice is quiet but clear. / hh er v oy s ih z k w ay ax t | b ah t k l ih r
Books about birds make me happy. / b uh k s ax b aw t b er d z | m ey k m iy hh ae p iy
They usually travel on Thursday. / dh ey y uw zh uw l iy | t r ae v ax l aa n th er z d ey
Pour some more milk, please. / p ao r s ah m m ao r m ih l k | p l iy z
A cheap umbrella broke in the storm. / ax ch iy p ah m b r eh l ax | b r ow k ih n dh ax s t ao r m
Both of them laughed at the joke. / b ow th ah v dh eh m | l ae f t ae t dh ax jh ow k
You can leave your shoes outside. / y uw k ae n l iy v y ao r sh uw z | aw t s ay d
The baker opens before seven. / dh ax b ey k er ow p ax n z | b ih f ao r s eh v ax n
Few people swim here in March. / f y uw p iy p ax l s w ih m | hh ih r ih n m aa r ch
Our team won by one point. / aw er t iy m w ah n | b ay w ah n p oy n t
Give that young puppy some water. / g ih v dh ae t y ah ng p ah p iy | s ah m w ao t er
The judge saw nothing wrong. / dh ax jh ah jh s ao | n ah th ih ng r ao ng
Maybe the phone is in your bag. / m ey b iy dh ax f ow n | ih z ih n y ao r b ae g
A measure of sugar goes in first. / ax m eh zh er ah v sh uh g er | g ow z ih n f er s t
Where did you buy those boots? / w eh r d ih d y uw b ay | dh ow z b uw t s
The cook chopped four red peppers. / dh ax k uh k ch aa p t | f ao r r eh d p eh p er z
Nine empty boats moved in the fog. / n ay n eh m p t iy b ow t s | m uw v d ih n dh ax f aa g
I hope Emma brings her map. / ay hh ow p eh m ax | b r ih ng z hh er m ae p
Bob may bring you two purple balloons. / b aa b m ey b r ih ng y uw | t uw p er p ax l b ax l uw n z
Poor Amy will be home by noon. / p uh r ey m iy w ih l b iy hh ow m | b ay n uw n
We moved a big mop by the pool. / w iy m uw v d ax b ih g m aa p | b ay dh ax p uw l
"""


def _sentences() -> tuple[Sentence, ...]:
    read = []
    for number, row in enumerate(_SENTENCES.strip().splitlines(), 1):
        text, said = row.split(" / ")
        phones = (SILENCE, *said.replace("|", SILENCE).split(), SILENCE)
        split: Literal["train", "test"] = "train" if number < 28 else "test"
        read.append(Sentence(f"{number:03d}", text, phones, number <= 3, split))
    return tuple(read)


SENTENCES = _sentences()
"""Thirty sentences: 001 to 003 paired, 028 to 030 for tests only."""


@dataclass(frozen=True)
class Manner:
    """How a feeling changes speech, against the same speaker's neutral speech.

    Attributes:
        pitch: factor of the mean fundamental frequency.
        pitch_range: factor of its excursions, in semitones.
        energy: dB.
        rate: factor of the speaking rate.
        breathiness: added to the voice's; it may be negative (pressed).
        vowel_length: further factor of the vowels' durations.
        jaw: factor of the jaw's opening.
    """

    pitch: float = 1.0
    pitch_range: float = 1.0
    energy: float = 0.0
    rate: float = 1.0
    breathiness: float = 0.0
    vowel_length: float = 1.0
    jaw: float = 1.0


# Directions from Banse and Scherer (1996) and Juslin and Laukka (2003).
_FULL = {
    "neutral": Manner(),
    "angry": Manner(1.18, 1.5, 6.0, 1.12, -0.05, 1.0, 1.25),
    "disgusted": Manner(0.92, 0.8, -1.0, 0.88, 0.05, 1.12, 0.9),
    "fear": Manner(1.30, 0.9, -2.0, 1.18, 0.30, 0.94, 0.95),
    "happy": Manner(1.22, 1.6, 3.0, 1.06, 0.05, 1.08, 1.15),
    "sad": Manner(0.90, 0.55, -6.0, 0.84, 0.25, 1.15, 0.72),
    "surprised": Manner(1.35, 1.8, 3.5, 0.95, 0.10, 1.15, 1.3),
}


def manner(emotion: str, intensity: float) -> Manner:
    """Return how *emotion* is spoken, linear from neutral (0) to full (1).

    Directions follow Banse and Scherer (1996) and Juslin and Laukka (2003).

    Raises:
        UnknownNameError: not one of the seven emotions.
        CardError: an intensity outside 0 to 1.
    """
    if emotion not in _FULL:
        raise unknown_name("emotion", emotion, EMOTIONS)
    if not (math.isfinite(intensity) and 0 <= intensity <= 1):
        raise CardError(
            f"intensity {intensity} of emotion '{emotion}' is not between 0 and 1",
            "Give a number from 0 (neutral) to 1 (full)",
        )
    none, full = Manner(), _FULL[emotion]
    return Manner(
        **{
            f.name: (1 - intensity) * getattr(none, f.name) + intensity * getattr(full, f.name)
            for f in fields(Manner)
        }
    )


# How much of a change of pace each kind takes up: vowels stretch, closures hardly
# (Gay, 1981), which is why two readings are not a uniform stretch of each other.
_ELASTICITY = {"vowel": 1.3, "approximant": 0.9, "nasal": 0.7, "fricative": 0.7}
_STIFF = 0.35


def timing(
    sentence: Sentence, manner: Manner, rate: float, rng: np.random.Generator
) -> tuple[Phone, ...]:
    """Read a sentence: say when each of its phones is spoken.

    The last word's vowel and what follows it are lengthened (Klatt, 1976), every
    duration varies by about 8 %, silence of 0.16 to 0.30 s is at both ends, and the
    pause within is made in about one of three readings, else it has no length.

    Args:
        sentence: what is said.
        manner: in what emotion.
        rate: the speaker's own rate, 1 on average.
        rng: this reading's.

    Returns:
        One phone per symbol of the sentence, without gaps, from 0 s on.
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


def correspondence(
    a: Sequence[Phone], b: Sequence[Phone], times: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return when reading *b* says what reading *a* says at the given times.

    Linear within each phone. Where *a* has no pause and *b* has one, *b*'s pause is
    jumped over; times outside *a* go to the ends of *b*.

    Args:
        a: a reading.
        b: another reading of the same sentence.
        times: seconds in *a*, any shape.

    Returns:
        float64, the shape of *times*: seconds in *b*, never decreasing.

    Raises:
        CardError: readings of different sentences.
    """
    if not a or [phone.symbol for phone in a] != [phone.symbol for phone in b]:
        raise CardError(
            "the two readings do not say the same phones",
            "Give two readings of one sentence",
        )
    knots_a, knots_b = ([p.start for p in reading] + [reading[-1].end] for reading in (a, b))
    mapped: Floats = np.interp(np.asarray(times, np.float64), knots_a, knots_b)
    return mapped


# Seconds in which a phone's hold on each viseme falls by e before and after it. The lips
# round early and are slow to let go; they close and part fast.
_AHEAD = np.array([0.035, 0.045, 0.100, 0.020, 0.035, 0.030])
_BEHIND = np.array([0.035, 0.040, 0.050, 0.020, 0.035, 0.030])


def visemes(
    phones: Sequence[Phone], n_frames: int, frame_rate: float = 25.0, amplitude: float = 1.0
) -> Floats:
    """Return what the mouth does in each frame.

    Coarticulation after Cohen and Massaro (1993): a phone's hold on a channel is its
    insistence, falling exponentially with the time from its middle part; the channel is
    the mean of all targets by hold. Rounding reaches further ahead than back. In the
    frame nearest to the centre of p, b and m the lips are closed for certain.

    Args:
        phones: a reading; before and after it the mouth stays as at its ends.
        n_frames: number of frames; frame i shows time ``(i + 0.5) / frame_rate``.
        frame_rate: frames a second.
        amplitude: factor of the jaw's opening (:attr:`Manner.jaw`).

    Returns:
        float64 (n_frames, 6), columns as :data:`VISEMES`, within their ranges.
    """
    targets, strength, cores = [], [], []
    for phone in phones:
        said, length = PHONEMES[phone.symbol], phone.end - phone.start
        held = [(said, 0.25, 0.75)]
        if said.glide:  # a diphthong is held twice: itself early, its glide late
            held = [(said, 0.1, 0.4), (PHONEMES[said.glide], 0.75, 0.9)]
        for target, begin, end in held:
            targets.append(target.viseme)
            strength.append([hold * min(1.0, length / 0.03) for hold in said.insistence])
            cores.append((phone.start + begin * length, phone.start + end * length))
    core = np.array(cores)
    core[0, 0], core[-1, 1] = -np.inf, np.inf  # the ends go on outside the reading

    moments = (np.arange(n_frames) + 0.5) / frame_rate
    before = np.maximum(core[None, :, :1] - moments[:, None, None], 0)  # (frames, held, 1)
    after = np.maximum(moments[:, None, None] - core[None, :, 1:], 0)
    # In logarithms: far from all that insists, the nearest still decides.
    hold = np.log(np.array(strength) + 1e-9) - before / _AHEAD - after / _BEHIND
    hold = np.exp(hold - hold.max(axis=1, keepdims=True))
    mouth = (hold * np.array(targets)).sum(axis=1) / hold.sum(axis=1)

    for phone in phones:
        nearest = math.floor((phone.start + phone.end) / 2 * frame_rate)
        if phone.symbol in LABIALS and 0 <= nearest < n_frames:
            width = max(0.4 * (phone.end - phone.start), 0.02)
            press = np.exp(-0.5 * ((moments - moments[nearest]) / width) ** 2)
            mouth[:, 3] = np.maximum(mouth[:, 3], press)
    mouth[:, 0] *= amplitude
    low = np.array([0, -1, 0, 0, 0, 0])
    bounded: Floats = np.clip(mouth, low, 1)
    return bounded
