"""Declares the kinds of devices `local`, `ssh` and `adb`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgeopt.plugins import Device, DevicePlugin, hookimpl
from edgeopt_devices.options import AdbOptions, LocalOptions, SshOptions


def open_local(options: LocalOptions, name: str, waiting: Callable[[str], None]) -> Device:
    """This machine; see `edgeopt_devices.local`."""
    from edgeopt_devices.local import open_local  # the agent's other end: only where a device is used

    return open_local(options, name, waiting)


def open_ssh(options: SshOptions, name: str, waiting: Callable[[str], None]) -> Device:
    """A board behind ssh; see `edgeopt_devices.ssh`."""
    from edgeopt_devices.ssh import open_ssh  # as above

    return open_ssh(options, name, waiting)


def open_adb(options: AdbOptions, name: str, waiting: Callable[[str], None]) -> Device:
    """A phone behind adb; see `edgeopt_devices.adb`."""
    from edgeopt_devices.adb.device import open_adb  # as above

    return open_adb(options, name, waiting)


@hookimpl
def edgeopt_devices() -> Iterator[DevicePlugin]:
    """The kinds of devices of this package."""
    yield DevicePlugin("local", "This machine.", LocalOptions, open=open_local)
    yield DevicePlugin(
        "ssh", "A Raspberry Pi, a Jetson or any other Linux with Python, behind ssh.", SshOptions, open=open_ssh
    )
    yield DevicePlugin(
        "adb", "An Android phone or tablet, with an app or a runner that has its files.", AdbOptions, open=open_adb
    )
