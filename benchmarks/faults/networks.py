"""Two machines on one: network namespaces joined by a cable that can be cut."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

FIRST, SECOND = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True)
class Machine:
    """A namespace with its end of the cable; `enter` goes before a command to run it there."""

    name: str
    interface: str

    @property
    def enter(self) -> list[str]:
        """The words before a command."""
        return [
            "ip", "netns", "exec", self.name,
            "env", f"GLOO_SOCKET_IFNAME={self.interface}", f"NCCL_SOCKET_IFNAME={self.interface}",
        ]  # fmt: skip

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        _ip("-n", self.name, "link", "set", self.interface, "down")


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two of them at FIRST and SECOND; raises OSError where namespaces cannot be made."""
    machines = Machine("relafaults1", "relaf1"), Machine("relafaults2", "relaf2")
    try:
        for machine in machines:
            _ip("netns", "add", machine.name)
        first, second = machines
        _ip("link", "add", first.interface, "type", "veth", "peer", "name", second.interface)
        for machine, address in zip(machines, (FIRST, SECOND), strict=True):
            _ip("link", "set", machine.interface, "netns", machine.name)
            _ip("-n", machine.name, "address", "add", f"{address}/24", "dev", machine.interface)
            _ip("-n", machine.name, "link", "set", machine.interface, "up")
            _ip("-n", machine.name, "link", "set", "lo", "up")
        yield machines
    finally:
        for machine in machines:
            with contextlib.suppress(OSError):
                _ip("netns", "delete", machine.name)


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OSError("there is no `ip` command") from error
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
