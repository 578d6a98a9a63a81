"""Recordings as the images of a data set."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.data.walk import require_unchanged
from edgeopt.plugins import RawDataset
from edgeopt_audio.spectrogram import image, mel_filters
from edgeopt_audio.wav import read_wav, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Labels, Pixels
    from edgeopt_audio.layout import Recording, Recordings
    from edgeopt_audio.options import SoundCopies, SoundOptions

    Samples = NDArray[np.float32]

_NOISE_RANGE_DB = 20.0
_STEPS = 100  # of playing speed


@dataclass(frozen=True, eq=False)
class SoundImages:
    """Images of recordings, made when asked for: first the recordings themselves, then as often each changed copy."""

    recordings: tuple[Recording, ...]
    labels: Labels
    sound: SoundOptions

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Pixels:
        copy, place = divmod(index, len(self.recordings))
        recording = self.recordings[place]
        require_unchanged(recording.file, recording.size, recording.changed)
        samples = read_wav(recording.file, self.sound.sample_rate)
        wanted = round(self.sound.seconds * self.sound.sample_rate)
        if copy:
            random = np.random.default_rng([copy, zlib.crc32(os.fsencode(recording.name))])
            return image(changed(samples, wanted, self.sound.copies, random), self.sound)
        return image(middle(samples, wanted), self.sound)

    def name_of(self, index: int) -> str:
        """The path of the recording."""
        return str(self.recordings[index % len(self.recordings)].file)


def read_recordings(found: Recordings, sound: SoundOptions, by_speaker: bool) -> RawDataset:
    """Recordings with the classes and splits that their paths name; copies are made of those of train."""
    if sound.kind == "log-mel":
        mel_filters(
            sound.mel_bands, sound.n_fft, sound.sample_rate
        )  # what is wrong with it shows before any file is read
    recordings = found.files
    classes = tuple(sorted({each.label for each in recordings}))
    splits, groups, copies = {}, {}, {}
    for split in sorted({each.split for each in recordings}):
        chosen = tuple(each for each in recordings if each.split == split)
        repeats = 1 + (sound.copies.count if split == "train" else 0)
        labels = np.array([classes.index(each.label) for each in chosen] * repeats, dtype=np.int64)
        splits[split] = SoundImages(chosen, labels, sound)
        if by_speaker:
            groups[split] = [each.speaker for each in chosen] * repeats
        if repeats > 1:
            place = np.arange(len(labels)) % len(chosen)
            copies[split] = np.where(np.arange(len(labels)) < len(chosen), -1, place)
    return RawDataset(classes, splits, groups, copies, found.warnings)


def middle(samples: Samples, wanted: int) -> Samples:
    """Float32 (wanted,): the middle of a long recording, a short one with silence on both sides."""
    missing = wanted - len(samples)
    if missing >= 0:
        return np.pad(samples, (missing // 2, missing - missing // 2))
    return samples[-missing // 2 :][:wanted]


def changed(samples: Samples, wanted: int, copies: SoundCopies, random: np.random.Generator) -> Samples:
    """A copy, float32 (wanted,): played at another speed, with white noise.

    Source of the speed: T. Ko et al., "Audio Augmentation for Speech Recognition", Interspeech 2015.
    """
    if copies.stretch:
        speed = 1 + random.uniform(-copies.stretch, copies.stretch)
        samples = resampled(samples, round(_STEPS * speed), _STEPS)
    power = float(np.mean(np.square(samples)))  # of the word, before silence is put around it
    samples = middle(samples, wanted)
    if copies.noise_db is not None and power:
        ratio_db = copies.noise_db + random.uniform(0, _NOISE_RANGE_DB)
        samples = samples + random.normal(0, np.sqrt(power / 10 ** (ratio_db / 10)), wanted).astype(np.float32)
    return samples
