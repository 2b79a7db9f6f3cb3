"""The variants: a library on an event loop, and what it can do.

Owns one table; the libraries themselves are called by `servers` and `clients` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .scenarios import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .scenarios import Scenario

BASELINE = "websockets-asyncio"
"""What the ratios are to."""


@dataclass(frozen=True)
class Variant:
    """One way to run one library.

    Args:
        name: as the command line and the tables have it.
        module: its module in `servers`, and in `clients` if there is one.
        loop: "asyncio", "uvloop" or "trio".
        raw: whether it sends bytes back as they came: the least that the loop itself costs.
        client: whether there is a client.
        deflate: whether it has permessage-deflate.
        tls: whether there is TLS.
        only_deflate: whether it differs from another in permessage-deflate alone.
        environment: what is added to its environment.
        codec: the codec that it is meant to show, where that can differ.
    """

    name: str
    module: str
    loop: str
    raw: bool = False
    client: bool = True
    deflate: bool = True
    tls: bool = True
    only_deflate: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    codec: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is anyws."""
        return self.module == "anyws"

    @property
    def bound(self) -> bool:
        """Whether it is no library, but the least that one could cost."""
        return self.raw or self.module == "bare"

    def obstacle(self, scenario: Scenario) -> str | None:
        """Say why the variant has no figure in a scenario; None where it has one."""
        if scenario.of_client and not self.client:
            return "no client of its own"
        if scenario.deflate and not self.deflate:
            return "no permessage-deflate"
        if self.only_deflate and not scenario.deflate:
            return "differs in permessage-deflate alone"
        if scenario.tls and not self.tls:
            return "not measured over TLS"
        if scenario.kind in {Kind.HANDSHAKE, Kind.BROADCAST} and self.raw:
            # Without one, nobody knows when the server has all its connections.
            return "no handshake"
        if scenario.kind is Kind.BROADCAST and self.bound:
            return "no broadcast"
        return None


_PYTHON = {"ANYWS_PURE_PYTHON": "1"}
_ISAL = {"BENCHMARKS_DEFLATE": "isal"}

VARIANTS = (
    *(
        Variant(f"anyws-{loop}-{codec}", "anyws", loop, environment=environment, codec=codec)
        for loop in ("asyncio", "uvloop", "trio")
        for codec, environment in (("c", {}), ("python", _PYTHON))
    ),
    *(
        Variant(f"anyws-{loop}-isal", "anyws", loop, only_deflate=True, environment=_ISAL)
        for loop in ("asyncio", "uvloop", "trio")
    ),
    Variant(BASELINE, "websockets", "asyncio"),
    Variant("websockets-uvloop", "websockets", "uvloop"),
    Variant("websockets-trio", "websockets_trio", "trio"),
    Variant("picows-asyncio", "picows", "asyncio", deflate=False),
    Variant("picows-uvloop", "picows", "uvloop", deflate=False),
    Variant("picows.websockets-asyncio", "picows_websockets", "asyncio"),
    Variant("picows.websockets-uvloop", "picows_websockets", "uvloop"),
    Variant("aiohttp-asyncio", "aiohttp", "asyncio"),
    Variant("aiohttp-uvloop", "aiohttp", "uvloop"),
    Variant("trio-websocket", "trio_websocket", "trio", deflate=False),
    *(
        Variant(f"bare-{loop}", "bare", loop, deflate=False, tls=False)
        for loop in ("asyncio", "uvloop", "trio")
    ),
    *(
        Variant(f"raw-{loop}", "raw_asyncio", loop, raw=True, client=False, deflate=False)
        for loop in ("asyncio", "uvloop")
    ),
    Variant("raw-trio", "raw_trio", "trio", raw=True, client=False, deflate=False, tls=False),
    *(
        Variant(
            f"raw-{loop}-socket",
            "raw_socket",
            loop,
            raw=True,
            client=False,
            deflate=False,
            tls=False,
        )
        for loop in ("asyncio", "uvloop", "trio")
    ),
)


def select_variants(patterns: Sequence[str]) -> list[Variant]:
    """Give the variants that a pattern matches, such as "anyws-*", and always the baseline.

    Raises:
        ValueError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(variant.name, pattern) for variant in VARIANTS):
            names = ", ".join(variant.name for variant in VARIANTS)
            raise ValueError(f"no variant {pattern!r}; there are: {names}")
    return [
        variant
        for variant in VARIANTS
        if variant.name == BASELINE or any(fnmatchcase(variant.name, p) for p in patterns)
    ]
