"""A long search, guided by coverage: `python -m tests.fuzzing.run decoder --seconds 600`.

Owns its course: each target in a process of its own, from all inputs that are known. `nox -s fuzz`
installs what it needs, and runs the targets of the compiled codec once more under the sanitizers.
It fails where something was found; the input stays in `found/`, and belongs into `corpus/` as
`finding-....bin`, in a commit before the one that mends what it shows.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzzing.seeds import CORPUS, read_inputs
from tests.fuzzing.targets import TARGETS

FOUND = Path("found")

COMPILED = ("decoder", "encoder", "frames", "protocol")
"""The targets that run the compiled codec: for them the sanitizers may find more."""

# Bytes of an input: heads have limits that are larger than anything a frame needs here.
MAX_SIZE = 2048
MAX_HEAD_SIZE = 10_000

# Seconds that one input may take: more is a finding.
PATIENCE = 20

# MiB that a process may take: an input decodes to some MiB at the most.
MEMORY = 2048

# What a fuzzer would need long to find out by itself.
WORDS = (
    *("GET ", "HTTP/1.1", "HTTP/1.0", "\r\n", "\r\n\r\n", "Host: ", "Origin: ", "http://"),
    *("Upgrade: websocket", "Connection: Upgrade", "Content-Length: ", "chunked"),
    *("Transfer-Encoding: ", "Sec-WebSocket-Key: ", "Sec-WebSocket-Version: 13"),
    *("Sec-WebSocket-Protocol: ", "Sec-WebSocket-Accept: ", "Sec-WebSocket-Extensions: "),
    *("permessage-deflate", "client_max_window_bits", "server_max_window_bits="),
    *("client_no_context_takeover", "server_no_context_takeover"),
    *("ws://", "wss://", "ws+unix://", "xn--", "[::1]", "%25", "%40", "%2F"),
    *("\0\0\xff\xff", "\xed\xa0\x80", "\xf4\x90", "\x03\xe8", "\x7f\xff\xff\xff"),
)


def search(target: str, seconds: float, seed: int, *, keep: bool) -> bool:
    """Search in a process for one target; say whether nothing was found."""
    with tempfile.TemporaryDirectory() as name:
        known, new, words = (Path(name) / part for part in ("known", "new", "words"))
        known.mkdir()
        new.mkdir()
        for number, data in enumerate(read_inputs(target).values()):
            (known / str(number)).write_bytes(data)
        escaped = ["".join(f"\\x{ord(char):02x}" for char in word) for word in WORDS]
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        FOUND.mkdir(exist_ok=True)
        options = {
            "max_total_time": int(seconds),
            "max_len": MAX_HEAD_SIZE if "handshake" in target else MAX_SIZE,
            "timeout": PATIENCE,
            "rss_limit_mb": MEMORY,
            "seed": seed,
            "dict": words,
            "artifact_prefix": f"{FOUND}/{target}-",
            "print_final_stats": 1,
        }
        started = _cpu_seconds()
        status, log = _drive(target, options, new, known)
        print(_summary(target, log, _cpu_seconds() - started), flush=True)
        if status:
            print(log[-5000:], file=sys.stderr, flush=True)
        if keep:
            _keep(target, known, new)
    return status == 0


def _drive(target: str, options: dict[str, object], *folders: Path) -> tuple[int, str]:
    """Give the exit status of a process and what it has logged."""
    command = [sys.executable, "-m", "tests.fuzzing.drive", target]
    command += [f"-{name}={value}" for name, value in options.items()]
    command += [str(folder) for folder in folders]
    result = subprocess.run(
        command, check=False, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    return result.returncode, re.sub(
        r"^INFO: Instrumenting .*\n", "", result.stderr, flags=re.MULTILINE
    )


def _cpu_seconds() -> float:
    """Give what the processes have used that have ended: others may use the same core."""
    times = os.times()
    return times.children_user + times.children_system


def _summary(target: str, log: str, seconds: float) -> str:
    runs = re.findall(r"^stat::number_of_executed_units: +([0-9]+)", log, re.MULTILINE)
    covered = re.findall(r"cov: ([0-9]+) ft: ([0-9]+) corp: ([0-9]+)/([0-9A-Za-z]+)", log)
    if not runs or not covered:
        return f"{target}: ended after {seconds:.0f} s of CPU"
    count = int(runs[-1])
    edges, features, size, size_bytes = covered[-1]
    return (
        f"{target}: {count:,} inputs in {seconds:.0f} s of CPU, {count / seconds:,.0f}/s;"
        f" {covered[0][0]} edges at first, {edges} at the end;"
        f" {features} features of {size} inputs ({size_bytes})"
    )


def _keep(target: str, known: Path, new: Path) -> None:
    """Add to the corpus what reaches an edge that no known input reaches."""
    before = set(known.iterdir())
    _drive(target, {"merge": 1, "use_counters": 0, "max_len": MAX_HEAD_SIZE}, known, new)
    kept = set(known.iterdir()) - before
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for path in kept:
        data = path.read_bytes()
        (folder / f"found-{hashlib.sha256(data).hexdigest()[:8]}.bin").write_bytes(data)
    print(f"{target}: {len(kept)} inputs kept", flush=True)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing.run", description=__doc__)
    parser.add_argument("targets", nargs="*", help="which; all unless given")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of what is random in the search")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what is new")
    parser.add_argument(
        "--compiled", action="store_true", help="those alone that run the compiled codec"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}, expected {', '.join(TARGETS)}")
    quiet = [
        search(target, arguments.seconds, arguments.seed, keep=arguments.keep)
        for target in arguments.targets or TARGETS
        if target in COMPILED or not arguments.compiled
    ]
    return 0 if all(quiet) else 1


if __name__ == "__main__":
    sys.exit(main())
