"""`python -m edgeopt_audio.synthesis FOLDER SPEAKERS TAKES` writes the recordings of `spoken-digits`.

It is a process of its own, because eSpeak NG keeps a state that each utterance moves on: only the same words in the
same order, from the start, give the same bytes. It is also a program under the GPL, which nothing here is linked with.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from edgeopt_audio.voices import ACCENTS, VOICES, WORDS
from edgeopt_audio.wav import resampled

SAMPLE_RATE = 8_000
_SYNCHRONOUS, _NO_EXIT = 2, 0x8000
_UTF8 = 1
_SPEED, _PITCH, _RANGE = 1, 3, 4  # words a minute; 0..100; 0..100
_SECONDS = 1.0  # of each recording, at least

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesizer:
    """eSpeak NG; see `speak_lib.h` of its sources."""

    def __init__(self) -> None:
        import espeakng_loader  # brings the library and its voices

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _NO_EXIT))
        if self.sample_rate <= 0:
            raise OSError(f"eSpeak NG cannot start with the data of {data.decode()}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # or some voices breathe differently every time
        self._heard: list[bytes] = []
        self._callback: Callable[..., int] = _Callback(self._hear)  # kept, or it is collected
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int) -> np.ndarray:
        """A word, float32 (n,), -1 to 1."""
        self._heard.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise OSError(f"eSpeak NG has no voice {voice!r}")
        for parameter, value in ((_SPEED, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.frombuffer(b"".join(self._heard), dtype=np.int16).astype(np.float32) / 32768

    def _hear(self, samples: object, count: int, events: object) -> int:  # noqa: ARG002 - eSpeak NG gives them
        if samples and count > 0:
            self._heard.append(ctypes.string_at(samples, 2 * count))  # type: ignore[arg-type]
        return 0


def write_digits(folder: Path, speakers: int, takes: int) -> None:
    """Writes `{digit}_{speaker}_{take}.wav`, 16-bit mono.

    Each speaker has an accent, a pitch and a speed, and each take varies them. Where in the second the word stands, how
    loud it is and how noisy differ as in recordings.
    """
    synthesizer = Synthesizer()
    for number, voice in enumerate(VOICES[:speakers]):
        random = np.random.default_rng([1, number])
        accent = ACCENTS[number % len(ACCENTS)]
        pitch, speed = random.integers(20, 81), random.integers(140, 211)
        for take in range(takes):
            for digit, word in enumerate(WORDS):
                sound = synthesizer.say(
                    word,
                    f"{accent}+{voice}",
                    words_per_minute=round(speed * random.uniform(0.85, 1.15)),
                    pitch=int(np.clip(pitch + random.integers(-10, 11), 0, 99)),
                    pitch_range=int(random.integers(20, 81)),
                )
                samples = _recorded(resampled(sound, synthesizer.sample_rate, SAMPLE_RATE), random)
                wavfile.write(folder / f"{digit}_{voice}_{take}.wav", SAMPLE_RATE, samples)


def _recorded(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The word as a microphone records it, int16: anywhere in a second, at any loudness, noise 5 to 30 dB below."""
    free = max(0, round(_SECONDS * SAMPLE_RATE) - len(sound))
    before = int(random.integers(free // 4, free - free // 4 + 1))
    power = float(np.mean(np.square(sound)))
    placed = np.pad(sound, (before, free - before))
    white = random.normal(0, 1, len(placed))
    brown = np.cumsum(white) - np.linspace(0, white.sum(), len(white))  # rumble
    share = random.uniform()
    noise = share * white / white.std() + (1 - share) * brown / brown.std()
    ratio_db = random.uniform(5, 30)
    placed = placed + noise / noise.std() * np.sqrt(power / 10 ** (ratio_db / 10))
    loudest = random.uniform(0.1, 0.9)
    recorded: np.ndarray = np.rint(placed / np.abs(placed).max() * loudest * 32767).astype(np.int16)
    return recorded


if __name__ == "__main__":
    write_digits(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
