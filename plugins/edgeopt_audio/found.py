"""What one look at a folder of recordings found. Light: `edgeopt check` asks it, and no file is read."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.plugins import DataSurvey, RawDataset
from edgeopt_audio.layout import Layout, Recordings, find_recordings
from edgeopt_audio.options import WavFolderOptions


@dataclass(frozen=True)
class FoundRecordings:
    """The recordings of a folder, and how they become images."""

    recordings: Recordings
    options: WavFolderOptions

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return self.recordings.fingerprint()

    def survey(self) -> DataSurvey:
        """The classes and counts, by the names of the files."""
        return self.recordings.survey()

    def load(self) -> RawDataset:
        """The recordings, read when they are asked for."""
        from edgeopt_audio.recordings import read_recordings  # numpy and scipy are heavy

        return read_recordings(self.recordings, self.options, by_speaker=self.options.split_by == "speaker")


def find_folder(options: WavFolderOptions) -> FoundRecordings:
    """Looks at a folder; raises `DataError` when it does not hold what it must."""
    layout = Layout(options.layout)
    return FoundRecordings(find_recordings(options.path, layout, skip_broken=options.on_error == "skip"), options)
