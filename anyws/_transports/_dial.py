"""Connecting sockets: to the first address of a name that answers, or to a path.

Owns the race of addresses (RFC 8305); knows no stream.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, TypeAlias

from anyio import (
    Event,
    create_task_group,
    get_cancelled_exc_class,
    getaddrinfo,
    move_on_after,
    sleep,
    wait_writable,
)

if TYPE_CHECKING:
    from os import PathLike

Address: TypeAlias = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""The family of a socket, and what its `connect` takes."""

# Seconds until the next address is tried too (RFC 8305 section 8, "Connection Attempt Delay").
_ATTEMPT_DELAY = 0.25

# Seconds between attempts while the queue of a UNIX socket is full: nothing tells when it is not.
_QUEUE_DELAY = 0.01


async def dial_tcp(host: str, port: int) -> socket.socket:
    """Connect to the first address of `host` that answers.

    Raises:
        OSError: none did; where several were tried, the cause is an ExceptionGroup.

    Cancellation: nothing is left open.
    """
    race = _Race()
    winner = await race.run(interleave(await _resolve(host, port)))
    if winner is None:
        raise race.error()
    return winner


async def dial_unix(path: str | PathLike[str]) -> socket.socket:
    """Connect to a UNIX socket.

    Raises:
        OSError: it failed.

    Cancellation: nothing is left open.
    """
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        while True:
            try:
                raw.connect(os.fspath(path))
            except BlockingIOError:
                await sleep(_QUEUE_DELAY)
            else:
                return raw
    except BaseException:
        raw.close()
        raise


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        found = await getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]
    return [(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))]


def interleave(addresses: list[Address]) -> list[Address]:
    """Order addresses so that the families take turns, as RFC 8305 section 4 says.

    The first family is that of the first address.
    """
    unique = list(dict.fromkeys(addresses))
    first = [address for address in unique if address[0] == unique[0][0]]
    others = [address for address in unique if address[0] != unique[0][0]]
    ordered: list[Address] = []
    while first or others:
        ordered += [group.pop(0) for group in (first, others) if group]
    return ordered


class _Race:
    """Attempts to connect, of which the first that succeeds wins."""

    def __init__(self) -> None:
        self._errors: list[OSError] = []
        self._winner: socket.socket | None = None
        self._task_group = create_task_group()

    async def run(self, addresses: list[Address]) -> socket.socket | None:
        try:
            async with self._task_group:
                for address in addresses:
                    failed = Event()
                    self._task_group.start_soon(self._attempt, address, failed)
                    with move_on_after(_ATTEMPT_DELAY):
                        await failed.wait()  # its failure; a success cancels all
        except BaseException as exc:
            if self._winner is not None:
                self._winner.close()
            if isinstance(exc, BaseExceptionGroup):
                # An attempt fails with an OSError alone: this is a KeyboardInterrupt or its like,
                # maybe beside a cancellation, and it stays bare.
                _, interrupts = exc.split(get_cancelled_exc_class())
                raise (interrupts or exc).exceptions[0] from None
            raise
        return self._winner

    async def _attempt(self, address: Address, failed: Event) -> None:
        try:
            raw = await _connect(address)
        except OSError as exc:
            self._errors.append(exc)
            failed.set()
            return
        if self._winner is None:
            self._winner = raw
            self._task_group.cancel_scope.cancel()
        else:
            raw.close()  # two at the same time

    def error(self) -> OSError:
        """Make the error that says why none won."""
        first = self._errors[0]
        if len(self._errors) == 1:
            return first
        if len({error.errno for error in self._errors}) == 1:
            error = OSError(first.errno, first.strerror)
        else:
            error = OSError("no address answered")
        error.__cause__ = ExceptionGroup("attempts to connect", self._errors)
        return error


async def _connect(address: Address) -> socket.socket:
    family, at = address
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            raw.connect(at)
        except BlockingIOError:
            await wait_writable(raw)  # the system's time-out ends it at the latest
            error = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        raw.close()
        raise
    return raw
