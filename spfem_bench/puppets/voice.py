"""The puppets' voices: source-filter synthesis of a phone track, after Klatt (1980).

Pulses and breath go through a cascade of formants, friction and bursts beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import lfilter, sosfilt

from spfem_bench.media.audio import SAMPLE_RATE
from spfem_bench.puppets.speech import PHONEMES, Manner, Phone

_Floats = npt.NDArray[np.float64]
_BLOCK = 80  # samples for which the vocal tract stands still: 5 ms
_UPPER = ((3500.0, 220.0), (4500.0, 300.0))  # F4 and F5 of every phone, with bandwidths, Hz
_NASAL_POLE, _NASAL_ZERO = 270.0, 450.0  # Hz; they cancel outside nasals (Klatt, 1980)
_BACKGROUND = 10 ** (-60 / 20)  # room noise, so that no sound is the logarithm of zero


@dataclass(frozen=True)
class Voice:
    """A speaker's voice."""

    pitch: float = 120.0  # mean fundamental frequency in neutral speech, Hz, 85 to 260
    formant_scale: float = 1.0  # factor of all formants, 0.85 (long tract) to 1.2 (short)
    breathiness: float = 0.1  # 0 (none) to 1 (whisper-like)
    tilt: float = 4.0  # how far the source is down at 3 kHz beyond its own fall, dB, from 0
    jitter: float = 0.01  # relative variation from one pitch period to the next


def synthesise(
    phones: Sequence[Phone], voice: Voice, manner: Manner, n_samples: int, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Return the sound of a reading of at least one phone: int16 (n_samples,), 16 kHz.

    The peak is at -8 dB of full scale plus the manner's energy, and at most at -1 dB.
    """
    blocks = -(-n_samples // _BLOCK)
    total = blocks * _BLOCK
    breath = float(np.clip(voice.breathiness + manner.breathiness, 0, 1))

    voicing, aspiration = _amplitudes(phones, total)
    pulses, phase = _glottis(_melody(phones, voice, manner, total, rng), voice.jitter, rng)
    # Loud voices fall less towards high frequencies, breathy ones more (Klatt and Klatt, 1990).
    pulses = _tilted(pulses, voice.tilt + 8 * breath - 0.5 * manner.energy)
    pulses /= np.sqrt(np.mean(pulses**2)) + 1e-12
    # Breath noise is let through while the folds are apart.
    hiss = rng.standard_normal(total)
    source = voicing * pulses * (1 - 0.4 * breath)
    source += (aspiration + voicing * (0.01 + 0.25 * breath) * (phase < 0.6)) * hiss

    sound = _tract(source, _sections(phones, voice.formant_scale, blocks))
    # Friction is measured against this speaker's own vowels, so that it fits any tract.
    loudest = np.sqrt(np.mean(sound[voicing > 0.8] ** 2)) if np.any(voicing > 0.8) else 1.0
    sound = sound / loudest + _friction(phones, hiss)

    sound = sound[:n_samples]
    level = 10 ** (min(-8 + manner.energy, -1) / 20) - 4 * _BACKGROUND
    sound *= level / max(float(np.max(np.abs(sound), initial=0)), 1e-6)
    sound += _BACKGROUND * np.clip(rng.standard_normal(n_samples), -4, 4)
    return np.round(sound * 32767).astype(np.int16)


def _amplitudes(phones: Sequence[Phone], total: int) -> tuple[_Floats, _Floats]:
    """Return the amplitudes of the vocal folds and of the breath, float64 (total,) each."""
    voicing, aspiration = np.zeros(total), np.zeros(total)
    for k, phone in enumerate(phones):
        phoneme = phone.phoneme
        begin, release, end = (_at(t) for t in (phone.start, _release(phone), phone.end))
        voicing[begin:end] = phoneme.voicing
        if phone.symbol == "hh":
            aspiration[begin:end] = 0.35
        elif phoneme.kind == "stop" and not phoneme.voicing:
            aspiration[release:end] = 0.3
        elif phoneme.kind == "vowel":
            # The vowel is loudest early and a little weaker towards the end of the phrase.
            voicing[begin:end] *= np.linspace(1.0, 0.85, len(voicing[begin:end]))
            voicing[begin:end] *= 1.05 - 0.25 * k / len(phones)
    return _smooth(voicing), _smooth(aspiration)


def _melody(
    phones: Sequence[Phone], voice: Voice, manner: Manner, total: int, rng: np.random.Generator
) -> _Floats:
    """Return the fundamental frequency, Hz, float64 (total,): declination and accents."""
    times = np.arange(0, total, _BLOCK) / SAMPLE_RATE
    start, end = phones[0].end, max(phones[-1].start, phones[0].end + 0.01)
    semitones = np.interp(times, [start, end - 0.2 * (end - start), end], [1.5, -1.0, -2.5])
    for phone in phones:
        phoneme = phone.phoneme
        accent = rng.uniform(0.5, 2.5)
        if phoneme.kind == "vowel" and phone.symbol != "ax":
            middle, width = (phone.start + phone.end) / 2, 0.05
            semitones += accent * np.exp(-0.5 * ((times - middle) / width) ** 2)
    spoken = (times >= start) & (times <= end)
    semitones -= semitones[spoken].mean() if spoken.any() else 0.0
    pitch = voice.pitch * manner.pitch * 2 ** (manner.pitch_range * semitones / 12)
    return np.interp(np.arange(total) / SAMPLE_RATE, times, pitch)


def _glottis(pitch: _Floats, jitter: float, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Return the derivative of Rosenberg's (1971) glottal pulses, and the phase, 0 to 1."""
    cycles = np.cumsum(pitch) / SAMPLE_RATE
    wobble = 1 + jitter * np.clip(rng.standard_normal(int(cycles[-1]) + 2), -2.5, 2.5)
    cycles = np.cumsum(pitch * wobble[cycles.astype(int)]) / SAMPLE_RATE
    phase = cycles % 1
    opening, closing = 0.4, 0.16
    flow = np.where(
        phase < opening,
        0.5 - 0.5 * np.cos(np.pi * phase / opening),
        np.cos(np.pi / 2 * np.minimum((phase - opening) / closing, 1)),
    )
    # A difference of the flow is the derivative's mean over a sample: it hardly aliases.
    return np.diff(flow, prepend=0.0), phase


def _tilted(source: _Floats, fall: float) -> _Floats:
    """Return the source through the one-pole low-pass that is *fall* dB down at 3 kHz."""
    gain = 10 ** (-max(fall, 0.1) / 10)
    middle = 1 - gain * np.cos(2 * np.pi * 3000 / SAMPLE_RATE)
    pole = (middle - np.sqrt(middle**2 - (1 - gain) ** 2)) / (1 - gain)
    return np.asarray(lfilter([1 - pole], [1, -pole], source))


def _sections(phones: Sequence[Phone], scale: float, blocks: int) -> _Floats:
    """Return the vocal tract in each block as second-order sections, (blocks, 6, 6)."""
    times, knots = [], []
    for phone in phones:
        phoneme = phone.phoneme
        if phoneme.kind == "silence" or phone.symbol == "hh":
            continue  # these take the shape of their neighbours
        ends = PHONEMES[phoneme.glide] if phoneme.glide else phoneme
        for part, target in ((0.3, phoneme), (0.8 if phoneme.glide else 0.7, ends)):
            times.append(phone.start + part * phone.length)
            nasal = float(phoneme.kind == "nasal")
            knots.append((*target.formants, *phoneme.bandwidths, nasal))
    if not times:
        times, knots = [0.0], [(500.0, 1500.0, 2500.0, 80.0, 100.0, 150.0, 0.0)]
    moments = (np.arange(blocks) + 0.5) * _BLOCK / SAMPLE_RATE
    tracks = np.stack([np.interp(moments, times, track) for track in zip(*knots, strict=True)], 1)
    tracks = gaussian_filter1d(tracks, 2.0, axis=0, mode="nearest")  # 10 ms: the tongue has mass

    upper = np.broadcast_to(np.array(_UPPER), (blocks, 2, 2))
    formants = scale * np.concatenate([tracks[:, :3], upper[:, :, 0]], 1)
    bandwidths = np.concatenate([tracks[:, 3:6], upper[:, :, 1]], 1)
    sections = np.zeros((blocks, 6, 6))
    sections[:, :5, 3:] = _resonators(formants, bandwidths)
    sections[:, :5, 0] = sections[:, :5, 3:].sum(-1)  # gain 1 at 0 Hz
    zero = scale * (_NASAL_POLE + (_NASAL_ZERO - _NASAL_POLE) * tracks[:, 6])
    zeros = _resonators(zero, np.full(blocks, 100.0))
    poles = _resonators(np.full(blocks, scale * _NASAL_POLE), np.full(blocks, 100.0))
    sections[:, 5, :3] = zeros * (poles.sum(-1) / zeros.sum(-1))[:, None]
    sections[:, 5, 3:] = poles
    return sections


def _resonators(frequency: npt.ArrayLike, bandwidth: npt.ArrayLike) -> _Floats:
    """Return the polynomials (..., 3) of resonances given in Hz."""
    radius = np.exp(-np.pi / SAMPLE_RATE * np.asarray(bandwidth))
    angle = 2 * np.pi / SAMPLE_RATE * np.asarray(frequency)
    return np.stack([np.ones_like(radius), -2 * radius * np.cos(angle), radius**2], -1)


def _tract(source: _Floats, sections: _Floats) -> _Floats:
    """Return the source through sections that change from block to block, state carried on."""
    state = np.zeros((sections.shape[1], 2))
    sound = np.empty_like(source)
    for k, sos in enumerate(sections):
        here = slice(k * _BLOCK, (k + 1) * _BLOCK)
        sound[here], state = sosfilt(sos, source[here], zi=state)
    return sound


def _friction(phones: Sequence[Phone], hiss: _Floats) -> _Floats:
    """Return fricatives' and bursts' noise against a vowel's level 1, float64 (total,)."""
    envelopes: dict[tuple[float, ...], _Floats] = {}
    for phone in phones:
        phoneme = phone.phoneme
        if phoneme.noise is None:
            continue
        level, *band = phoneme.noise
        begin, end = _at(_release(phone)), _at(phone.end)
        if phoneme.kind == "stop":
            end = min(end, begin + SAMPLE_RATE // 80)  # a burst of 12 ms
        envelope = envelopes.setdefault(tuple(band), np.zeros_like(hiss))
        envelope[begin:end] = 10 ** (level / 20)
    sound = np.zeros_like(hiss)
    for (centre, width), envelope in envelopes.items():
        poles = _resonators(centre, width)
        noise = lfilter([1, 0, -1], poles, hiss)
        sound += _smooth(envelope) * noise / np.std(noise)
    return sound


def _release(phone: Phone) -> float:
    """Return when a closure opens, s; the start of a phone without closure."""
    closed = {"stop": 0.7, "affricate": 0.45}.get(phone.phoneme.kind, 0.0)
    return phone.start + closed * phone.length


def _at(time: float) -> int:
    return round(time * SAMPLE_RATE)


def _smooth(steps: _Floats) -> _Floats:
    """Round off steps over 10 ms, without delay."""
    once = uniform_filter1d(steps, SAMPLE_RATE // 200, mode="nearest")
    return np.asarray(uniform_filter1d(once, SAMPLE_RATE // 200, mode="nearest"))
