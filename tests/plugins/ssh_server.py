"""A real sshd on this machine, of this user, with keys and a configuration of its own, for one test session."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(p).exists()), None)
MISSING = "there is no sshd: apt install openssh-server"


@dataclass
class Loopback:
    """An ssh server behind a client's configuration in which it is the host `board`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.folder / "client_config"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def variant(self, name: str, **settings: str) -> Path:
        """A client's configuration that differs in some settings."""
        target = self.folder / f"client_config_{name}"
        lines = self.config.read_text().splitlines()
        kept = [line for line in lines if line.split()[0] not in settings]
        target.write_text("\n".join([*kept, *(f"{key} {value}" for key, value in settings.items())]) + "\n")
        return target

    def sessions(self) -> list[int]:
        """The processes of sshd that serve somebody."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return [int(each) for each in found]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(folder: Path, environment: Mapping[str, str], *, sftp: bool = True) -> Loopback:
    """Starts a server whose sessions have `environment`, with a home below `folder`."""
    assert SSHD
    home = folder / "home"
    home.mkdir(parents=True)
    folder.chmod(0o700)
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o600)
    port = free_port()
    variables = {"HOME": str(home), **environment}
    server = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/pid",
        "UsePAM no",
        "PasswordAuthentication no",
        "StrictModes no",
        "PermitRootLogin prohibit-password",
        # the first that names a variable counts, and HOME can be set in this way alone
        "SetEnv " + " ".join(f'"{name}={value}"' for name, value in variables.items()),
        *(["Subsystem sftp internal-sftp"] if sftp else []),
    ]
    (folder / "sshd_config").write_text("\n".join(server) + "\n")
    user = pwd.getpwuid(os.getuid()).pw_name
    client = [
        "Host board",
        "HostName 127.0.0.1",
        f"Port {port}",
        f"User {user}",
        f"IdentityFile {folder}/user_key",
        "IdentitiesOnly yes",
        f"UserKnownHostsFile {folder}/known_hosts",
        "GlobalKnownHostsFile /dev/null",
    ]
    (folder / "client_config").write_text("\n".join(client) + "\n")
    public = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
        )
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return Loopback(folder, port, process)
    raise AssertionError((folder / "sshd.log").read_text())
