"""What recipes can set of devices."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

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


class RunnerOptions(Options):
    """A program for Android that runs files."""

    kind: Literal["benchmark_model", "run_model", "executor_runner"] = Field(
        description="which program it is: LiteRT's benchmark_model or run_model, or ExecuTorch's executor_runner"
    )
    path: PosixPath = Field(description="the program, built for the phone's processor", examples=["benchmark_model"])
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="digest of the program: another one is not taken to the phone",
        examples=["0" * 64],
    )


class AdbOptions(LocalOptions):
    """The options of `adb`."""

    serial: str | None = Field(
        None,
        pattern=r"^[^\s-]\S*$",
        description="serial of the phone, as `adb devices` lists it; may be left out where one phone is attached",
    )
    app: str | None = Field(
        None,
        pattern=r"^[A-Za-z]\w*(\.[A-Za-z]\w*)+$",
        description="id of an app of `edgeopt app android`, installed in its build `bench`, which answers and is timed",
    )
    runner: RunnerOptions | None = Field(None, description="a program that takes the place of an app")
    folder: str = Field(
        "/data/local/tmp",
        pattern=r"^(/[A-Za-z0-9._-]+)+$",
        description="folder on the phone below which edgeopt has one of its own",
    )
    connect_timeout_s: int = Field(20, ge=1, le=600, description="how long to wait for the phone to say something, s")

    @field_validator("folder")
    @classmethod
    def _no_way_up(cls, folder: str) -> str:
        if {".", ".."} & set(folder.split("/")):
            raise ValueError("folder: write it without . and ..")
        return folder

    @model_validator(mode="after")
    def _one_that_runs(self) -> Self:
        if self.app is not None and self.runner is not None:
            raise ValueError("app and runner: one of them has the files; write a second [[devices]] for the other")
        return self
