"""The options of `digits`, `shapes`, `image-folder`, `csv`, `jsonl`, `webdataset` and `tfds`."""

from __future__ import annotations

from pydantic import Field, model_validator

from edgeopt.plugins import DatasetOptions, Options, PosixPath


class DigitsOptions(DatasetOptions):
    """Nothing but what every data set takes."""


class ShapesOptions(DatasetOptions):
    """How many images are drawn, and from which seed."""

    images: int = Field(8000, ge=120, le=200_000, description="how many images, as many of each class as can be")
    drawn_size: int = Field(64, ge=16, le=512, description="edge of the images before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the drawing")


class ImageFolderOptions(DatasetOptions):
    """Where the images are."""

    path: PosixPath = Field(
        description="folder with a folder of images for each class, or with train/, val/ and test/ that hold those",
    )
    splits: bool | None = Field(
        None,
        description="whether folders called train, Training, seg_train, val, dev, test and the like are splits (true) "
        "or classes (false); seen from what lies in them when left out",
    )


class TableOptions(DatasetOptions):
    """Which file names the images, and in which columns."""

    path: PosixPath = Field(description="file with a line for each image")
    image_column: str = Field("image", description="column with the path of the image's file")
    label_column: str = Field("label", description="column with its label: a text or a whole number")
    several_labels: bool = Field(
        False,
        description="whether an image has any number of labels, for the task multi-label: with label_separator between "
        "them in a .csv file, as a list in a .jsonl file",
    )
    split_column: str | None = Field(
        None,
        description="column that says train, val, test or the like; splits that are missing are drawn",
    )
    group_column: str | None = Field(
        None,
        description="column with what an image belongs to, such as a patient or a camera: splits that are drawn keep "
        "such a group together",
    )
    root: PosixPath | None = Field(
        None, description="folder that relative paths of images count from; that of the file when left out"
    )

    @model_validator(mode="after")
    def _columns_apart(self) -> TableOptions:
        columns = [self.image_column, self.label_column, self.split_column, self.group_column]
        named = [each for each in columns if each is not None]
        if twice := sorted({each for each in named if named.count(each) > 1}):
            raise ValueError(f"column {twice[0]!r} is named for two things")
        return self


class CsvOptions(TableOptions):
    """Which file names the images, and how its columns stand."""

    delimiter: str = Field(",", min_length=1, max_length=1, description="what stands between two fields of a line")
    label_separator: str = Field("|", min_length=1, max_length=3, description="what stands between an image's labels")

    @model_validator(mode="after")
    def _separator_has_an_effect(self) -> CsvOptions:
        if self.label_separator != "|" and not self.several_labels:
            raise ValueError("label_separator is for several_labels = true")
        if self.several_labels and self.delimiter == self.label_separator:
            raise ValueError(f"delimiter and label_separator are both {self.delimiter!r}")
        return self


class JsonlOptions(TableOptions):
    """Which file names the images, and by which keys."""


class WebDatasetOptions(DatasetOptions):
    """Which shards hold the images of each split, and how their samples are read."""

    train: str | tuple[str, ...] = Field(
        description="tar files to train on: paths or addresses that fsspec opens, with {0000..0099}, {a,b}, * and ?"
    )
    validation: str | tuple[str, ...] | None = Field(
        None, description="tar files to select on; drawn from train when left out"
    )
    test: str | tuple[str, ...] | None = Field(
        None, description="tar files to evaluate on; drawn from train when left out"
    )
    image_keys: tuple[str, ...] = Field(
        ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "tif", "tiff"),
        min_length=1,
        description="endings of a sample's image, the first one that it has",
    )
    label_key: str = Field("cls", min_length=1, description="ending of a sample's label: cls, txt or json")
    label_field: str = Field("label", min_length=1, description="where the label stands in a sample's .json")
    class_names: tuple[str, ...] | None = Field(
        None, min_length=2, description="names of the classes that the labels 0, 1, and so on stand for"
    )
    window: int = Field(
        4096,
        ge=1,
        description="within how many images the training order is shuffled, besides the order of the shards, where "
        "they do not fit in the cache",
    )

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """By split, what its shards are called."""
        given = {name: getattr(self, name) for name in ("train", "validation", "test")}
        return {name: (each,) if isinstance(each, str) else each for name, each in given.items() if each is not None}


class TfdsSplitNames(Options):
    """What a data set of TFDS calls the splits."""

    train: str = Field("train", description="split to train on")
    validation: str | None = Field(
        None,
        description='split to select on; "validation" or "val" where there is one when left out, "none" to draw it '
        "from train",
    )
    test: str | None = Field(
        None, description='split to evaluate on; "test" where there is one when left out, "none" to draw it from train'
    )


class TfdsOptions(DatasetOptions):
    """Which prepared data set, and what of its records are images and labels."""

    path: PosixPath = Field(
        description="folder of one version of a data set that TFDS prepared, as tensorflow_datasets/mnist/3.0.1"
    )
    image_feature: str | None = Field(
        None, description="feature with the image; the data set's own choice for training when left out"
    )
    label_feature: str | None = Field(
        None, description="feature with the label; the data set's own choice for training when left out"
    )
    several_labels: bool = Field(
        False, description="whether an image has any number of labels, for the task multi-label: a sequence of them"
    )
    split_names: TfdsSplitNames = Field(
        default_factory=TfdsSplitNames, description="what the data set calls the splits"
    )
    window: int = Field(
        4096,
        ge=1,
        description="within how many images the training order is shuffled, besides the order of the files, where they "
        "do not fit in the cache",
    )
