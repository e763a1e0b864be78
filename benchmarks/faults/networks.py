"""Two machines on one: network namespaces joined by a cable that can be cut."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

FIRST, SECOND = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True)
class Machine:
    """A namespace with its end of the cable."""

    name: str
    interface: str

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that run it there."""
        sockets = (f"{library}_SOCKET_IFNAME={self.interface}" for library in ("GLOO", "NCCL"))
        return ("ip", "netns", "exec", self.name, "env", *sockets)

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and no side is told."""
        _ip(f"-n {self.name} link set {self.interface} down")


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two of them at FIRST and SECOND; raises OSError where namespaces cannot be made."""
    machines = Machine("relafaults1", "relaf1"), Machine("relafaults2", "relaf2")
    try:
        for machine in machines:
            _ip(f"netns add {machine.name}")
        first, second = machines
        _ip(f"link add {first.interface} type veth peer name {second.interface}")
        for machine, address in zip(machines, (FIRST, SECOND), strict=True):
            _ip(f"link set {machine.interface} netns {machine.name}")
            _ip(f"-n {machine.name} address add {address}/24 dev {machine.interface}")
            _ip(f"-n {machine.name} link set {machine.interface} up")
            _ip(f"-n {machine.name} link set lo up")
        yield machines
    finally:
        for machine in machines:
            with contextlib.suppress(OSError):
                _ip(f"netns delete {machine.name}")


def _ip(arguments: str) -> None:
    """Raises OSError where there is no `ip`, or it fails."""
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {arguments}: {done.stderr.strip()}")
