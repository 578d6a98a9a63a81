"""What recipes can set of devices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from edgeopt.plugins import Options, PosixPath

Core = Annotated[int, Field(ge=0, le=4095)]


class LocalOptions(Options):
    """The options of `local`."""

    cores: tuple[Core, ...] = Field(
        (), description="numbers of the cores that files are kept to; the fastest, one a thread, when left out"
    )


class SshOptions(LocalOptions):
    """The options of `ssh`."""

    host: str = Field(
        description="host as `ssh` takes it: an alias of your ssh configuration, a name, or user@name",
        examples=["pi@raspberrypi.local"],
        pattern=r"^[^\s-]\S*$",
    )
    config: PosixPath | None = Field(
        None, description="configuration file of ssh (its -F); your own and the system's when left out"
    )
    python: str = Field("python3", pattern=r"^[^\s-]\S*$", description="Python 3.11 or newer on the device")
    install: bool = Field(
        True,
        description="make an environment with the runtimes, in the versions used here; false takes those that `python` "
        "has",
    )
    wheels: PosixPath | None = Field(
        None, description="folder of wheels that are taken there, for a device without a package index"
    )
    folder: str = Field(
        ".edgeopt-device",
        pattern=r"^[A-Za-z0-9._][A-Za-z0-9._/-]*$",
        description="folder below the home of the device's user; nothing is left anywhere else",
    )
    connect_timeout_s: int = Field(10, ge=1, le=600, description="how long to wait for a connection, s")

    @field_validator("folder")
    @classmethod
    def _below_home(cls, folder: str) -> str:
        if ".." in folder.split("/") or folder.strip("./") == "":
            raise ValueError("folder: it is a folder of its own below the home of the device's user")
        return folder
