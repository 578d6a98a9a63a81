"""A board behind ssh, reached with the system's `ssh` and `scp` and the user's own configuration of them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeopt.devices import AgentDevice, AgentSettings
from edgeopt.plugins import DeviceError, Problem
from edgeopt_devices.options import SshOptions

_LOST = 255  # what ssh ends with when it is ssh itself that failed
_NOT_FOUND = 127
_REFUSED = "run `ssh {host}` by hand: it must lead there without a question"

#: What ssh says, what that means, and what to do about it; the first that is in the text.
_CAUSES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "its host key is not the one that ssh knows: somebody may be in between",
        "where the board was set up anew, `ssh-keygen -R {name}`, then `ssh {host}` once and compare the key",
    ),
    ("Host key verification failed", "ssh does not know its host key", "`ssh {host}` once, and compare the key"),
    (
        "Permission denied",
        "it lets nobody in with the keys of this machine",
        "`ssh-copy-id {host}`, or start ssh-agent",
    ),
    ("Could not resolve hostname", "there is no host {name}", "write host as `ssh` takes it"),
    ("Connection refused", "it is away: no ssh server answers", "switch it on, and see that sshd runs there"),
    ("timed out", "it is away: nobody answers", "switch it on, and see that it is in this network"),
    ("No route to host", "it is away: nobody answers", "switch it on, and see that it is in this network"),
    ("Network is unreachable", "it is away: this machine has no network to it", "see that both are in one network"),
    ("Too many authentication failures", "it lets nobody in with the keys of this machine", _REFUSED),
    ("Bad configuration option", "ssh does not take its configuration", _REFUSED),
    ("Can't open user config file", "there is no such configuration of ssh", "write config as the path of one"),
)


@dataclass(frozen=True)
class SshLink:
    """The way to a host."""

    host: str
    config: Path | None
    connect_timeout_s: int

    @property
    def _settings(self) -> list[str]:
        """Nobody is asked anything, and a connection that is dead is found out within a quarter of a minute."""
        named = {
            "BatchMode": "yes",
            "ConnectTimeout": str(self.connect_timeout_s),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ClearAllForwardings": "yes",
        }
        config = ["-F", str(self.config)] if self.config else []
        return [*config, *(word for name, value in named.items() for word in ("-o", f"{name}={value}"))]

    def command(self, program: Sequence[str]) -> list[str]:
        """See `edgeopt.devices.Link`."""
        return ["ssh", "-T", *self._settings, "--", self.host, shlex.join(program)]

    def push(self, file: Path, target: str) -> subprocess.CompletedProcess[str]:
        """See `edgeopt.devices.Link`. A server without sftp, as small ones are, is spoken to as in the old days."""
        done = self._copy(file, target, [])
        if done.returncode and "subsystem request failed" in done.stderr:
            done = self._copy(file, target, ["-O"])
        return done

    def _copy(self, file: Path, target: str, how: list[str]) -> subprocess.CompletedProcess[str]:
        command = ["scp", *how, *self._settings, "--", str(file.resolve()), f"{self.host}:{target}"]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError as error:
            raise DeviceError(
                "there is no scp here", hint="install the ssh client (apt install openssh-client)"
            ) from error

    def explain(self, code: int, said: str) -> Problem:
        """See `edgeopt.devices.Link`."""
        name = self.host.rpartition("@")[2]
        for words, message, hint in _CAUSES:
            if words in said:
                return Problem(message.format(host=self.host, name=name), hint.format(host=self.host, name=name))
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else f"ssh ended with code {code}"
        if code == _NOT_FOUND:
            return Problem(
                f"there is no such Python: {last}", "install python3 there, or name one with the option python"
            )
        if code == _LOST or code < 0:
            return Problem(f"the connection broke: {last}", "see whether it is still on, and in this network")
        return Problem(f"what edgeopt runs there ended with code {code}: {last}", _REFUSED.format(host=self.host))

    def is_lost(self, code: int) -> bool:
        """See `edgeopt.devices.Link`."""
        return code == _LOST


def open_ssh(options: SshOptions, name: str, waiting: Callable[[str], None]) -> AgentDevice:
    """The board behind a host."""
    settings = AgentSettings(
        folder=options.folder,
        python=options.python,
        install=options.install,
        wheels=options.wheels,
        cores=options.cores,
    )
    return AgentDevice(name, SshLink(options.host, options.config, options.connect_timeout_s), settings, waiting)
