"""Where victims and hostile peers meet: each victim in a process of its own.

Owns that process, and what it is asked; what it tells comes from `hostile_witness`. Knows no row of
the table.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

from tests.reliability.hostile_cases import SERVER, Case
from tests.reliability.hostile_peer import attack_client, attack_server, listen
from tests.reliability.hostile_victims import Endings, Library
from tests.reliability.hostile_witness import LIMIT, Account, Witness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection as Pipe

# Where a victim's class stands, by the name of the library.
LIBRARIES = {
    "anyws": "tests.reliability.hostile_victims:Anyws",
    "websockets": "tests.reliability.hostile_libraries:Websockets",
    "aiohttp": "tests.reliability.hostile_libraries:Aiohttp",
}

LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@dataclass(frozen=True)
class Attack:
    """A row of the table, and the role that it attacks."""

    victim: str
    case: Case


@dataclass(frozen=True)
class Result:
    """What came of attacks."""

    attacks: list[Attack]
    outcomes: list[str]
    errors: list[str]
    """What the applications of clients got; empty for servers, and where nothing came."""
    account: Account

    def __iter__(self) -> Iterator[tuple[Attack, str, str]]:
        return zip(self.attacks, self.outcomes, self.errors, strict=True)


def attacks_on(victims: Sequence[str], cases: Sequence[Case]) -> list[Attack]:
    """Pair each case with those of the roles that it attacks."""
    return [Attack(victim, case) for victim in victims for case in cases if victim in case.victims]


class VictimDied(Exception):
    """The process of the victim has ended by itself, or does not answer any more."""


class Arena:
    """A victim, to be attacked: `with Arena("anyws", "trio") as arena`.

    Args:
        library: its name.
        loop: the name of the event loop.
        native: whether anyws reads and writes its sockets itself.
    """

    def __init__(self, library: str, loop: str, *, native: bool = True) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "anyws.testing", "trio", "uvloop"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=run_victim, args=(library, loop, native, theirs), daemon=True
        )
        self._theirs = theirs

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        self._ports: dict[bool, int] = self._receive()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it may have died
            self._pipe.send(("stop",))
        self._process.join(LIMIT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._pipe.close()

    def _receive(self) -> Any:
        if not self._pipe.poll(4 * LIMIT):
            raise VictimDied("it does not answer")
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as exc:
            raise VictimDied("its process has ended") from exc

    def _send(self, *request: Any) -> None:
        try:
            self._pipe.send(request)
        except OSError as exc:
            raise VictimDied("its process has ended") from exc

    def attack(self, attacks: Sequence[Attack], *, at_once: bool = False) -> Result:
        """Attack the victim with each of the cases.

        Args:
            attacks: rows of the table, and which role of the victim each attacks.
            at_once: whether they come at the same time, not one after the other.

        Raises:
            VictimDied: it did not live to tell.
        """
        self._send("begin")
        self._receive()
        with ThreadPoolExecutor(len(attacks) if at_once else 1) as threads:
            outcomes = list(threads.map(self._attack, attacks))
        self._send("end")
        account: Account = self._receive()
        errors = [account.errors.get(id(attack), "") for attack in attacks]
        return Result(list(attacks), outcomes, errors, account)

    def _attack(self, attack: Attack) -> str:
        case = attack.case
        if attack.victim == SERVER:
            return attack_server(self._ports[case.hasty], case.attack)
        with listen() as listener:
            port = listener.getsockname()[1]
            self._send("connect", id(attack), port, case.path, case.hasty, case.compression)
            return attack_client(listener, case.attack)


# In the process of the victim.


def run_victim(library: str, loop: str, native: bool, pipe: Pipe) -> None:
    """Be a victim until told to stop."""
    os.environ["ANYWS_NATIVE_TRANSPORTS"] = "1" if native else "0"
    module, _, name = LIBRARIES[library].partition(":")
    victim: Library = getattr(import_module(module), name)()
    anyio.run(partial(_be_attacked, victim, pipe), **LOOPS[loop])


async def _be_attacked(library: Library, pipe: Pipe) -> None:
    endings = Endings()
    witness = Witness(endings)

    async def connect(key: int, port: int, path: str, hasty: bool, compression: bool) -> None:
        endings.running += 1
        error = await library.connect(port, path, hasty=hasty, compression=compression)
        endings.running -= 1
        witness.errors[key] = error

    async with library.servers(endings) as ports, anyio.create_task_group() as tg:
        tg.start_soon(witness.measure_lag)
        pipe.send(ports)
        while True:
            request, *arguments = await anyio.to_thread.run_sync(_receive, pipe)
            if request == "begin":
                await witness.begin()
                pipe.send(None)
            elif request == "connect":
                tg.start_soon(connect, *arguments)
            elif request == "end":
                pipe.send(await witness.end())
            else:
                tg.cancel_scope.cancel()
                return


def _receive(pipe: Pipe) -> tuple[Any, ...]:
    try:
        request: tuple[Any, ...] = pipe.recv()
    except EOFError:  # the arena is gone
        return ("stop",)
    return request
