"""The options of the data set `hugging-face`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edgeopt.plugins import DatasetOptions, Options

_FILE_SUFFIXES = (".parquet", ".arrow")


class SplitNames(Options):
    """What the source calls the splits."""

    train: str = Field("train", description="split to train on")
    validation: str | None = Field(
        None,
        description='split to select on; "validation" where there is one when left out, "none" to draw it from train',
    )
    test: str | None = Field(
        None, description='split to evaluate on; "test" where there is one when left out, "none" to draw it from train'
    )


class HuggingFaceOptions(DatasetOptions):
    """Which data set, and where in it images and labels are."""

    source: str = Field(
        min_length=1,
        description="name on the Hugging Face hub (OWNER/NAME), or path of a local folder, .parquet or .arrow file",
    )
    config: str | None = Field(None, description="configuration, of a hub data set that has several")
    revision: str | None = Field(
        None, description="commit or tag of a hub data set; name a commit to repeat a run later"
    )
    image_column: str = Field("image", description="column with the images: images, encoded bytes, or paths")
    label_column: str = Field("label", description="column with the labels: class labels, texts or whole numbers")
    split_names: SplitNames = Field(default_factory=SplitNames, description="what the source calls the splits")

    @property
    def local(self) -> Path | None:
        """The path, where `source` is one and not a name on the hub."""
        path = Path(self.source).expanduser()
        spelled_as_path = self.source.startswith((".", "/", "~")) or self.source.endswith(_FILE_SUFFIXES)
        return path if spelled_as_path or self.source.count("/") > 1 or path.exists() else None
