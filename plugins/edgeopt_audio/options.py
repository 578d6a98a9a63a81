"""The options of `wav-folder` and `spoken-digits`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgeopt.plugins import DatasetOptions, Options, PosixPath
from edgeopt_audio.layout import Layout
from edgeopt_audio.voices import VOICES


class SoundCopies(Options):
    """Changed copies of the training recordings, made once: images of sound cannot be changed as sound afterwards."""

    count: int = Field(0, ge=0, le=20, description="changed copies of each training recording, kept beside it")
    noise_db: float | None = Field(
        15.0,
        ge=0.0,
        le=80.0,
        description="least signal-to-noise ratio of the noise mixed in, dB; each copy draws one of up to 20 dB more",
    )
    stretch: float = Field(
        0.1, ge=0.0, lt=1.0, description="play faster or slower by up to this share, which moves the pitch too"
    )

    @model_validator(mode="after")
    def _copies_differ(self) -> SoundCopies:
        if not self.count and self.model_fields_set - {"count"} and self != type(self)():
            raise ValueError("noise_db and stretch change copies, and count = 0 makes none")
        if self.count and self.noise_db is None and not self.stretch:
            raise ValueError("without noise_db and stretch the copies would be the same as the recordings")
        return self


class SoundOptions(DatasetOptions):
    """How a recording becomes an image: time from left to right, frequency upwards, loudness as brightness."""

    sample_rate: int = Field(
        16_000, ge=1000, le=192_000, description="rate that recordings are resampled to, samples a second"
    )
    seconds: float = Field(
        1.0, gt=0.0, le=60.0, description="length of every recording: the middle of longer ones, silence around shorter"
    )
    kind: Literal["log-mel", "decibel"] = Field(
        "log-mel", description="loudness in mel bands, as ears resolve it, or in all frequencies of the transform"
    )
    n_fft: int = Field(1024, ge=16, le=65_536, description="samples of a window of the short-time Fourier transform")
    hop_length: int = Field(256, ge=1, le=65_536, description="samples between two windows")
    mel_bands: int = Field(64, ge=8, le=512, description="bands of log-mel")
    floor_db: float = Field(
        -80.0, ge=-200.0, lt=0.0, description="loudness that is black, dB below the loudest of the recording"
    )
    copies: SoundCopies = Field(default_factory=SoundCopies, description="changed copies of the training recordings")


class WavFolderOptions(SoundOptions):
    """Where the recordings are, and what their names say."""

    path: PosixPath = Field(description="folder that holds the wav files, in folders or not")
    layout: str = Field(
        "{class}/{speaker}_{any}.wav",
        description="how a file's path below the folder reads: {class}, {speaker}, {split} (train, val or test) and "
        "{any}, such as "
        '"{class}_{speaker}_{any}.wav"',
    )
    split_by: Literal["speaker", "file"] = Field(
        "speaker",
        description='"speaker" keeps all of a speaker in one split; "file" may train on a voice that it tests with',
    )

    @field_validator("layout")
    @classmethod
    def _readable(cls, layout: str) -> str:
        Layout(layout)  # raises for what is wrong with it
        return layout

    @model_validator(mode="after")
    def _speakers_known(self) -> WavFolderOptions:
        if self.split_by == "speaker" and "speaker" not in Layout(self.layout).names:
            raise ValueError(
                f"layout {self.layout!r} does not say where a file names its speaker: put {{speaker}} into it, or set "
                'split_by = "file", after which a test also hears voices that were trained on'
            )
        return self


class SpokenDigitsOptions(SoundOptions):
    """How many voices."""

    sample_rate: int = Field(
        8_000, ge=1000, le=8_000, description="rate that recordings, of 8000 samples a second, are resampled to"
    )
    n_fft: int = Field(512, ge=16, le=65_536, description="samples of a window of the short-time Fourier transform")
    hop_length: int = Field(128, ge=1, le=65_536, description="samples between two windows")
    speakers: int = Field(60, ge=6, le=len(VOICES), description="voices that say the digits")
    takes: int = Field(4, ge=1, le=50, description="how often each voice says each digit")
    folder: PosixPath | None = Field(
        None, description="where the recordings are kept; edgeopt's folder in the user's cache when left out"
    )
