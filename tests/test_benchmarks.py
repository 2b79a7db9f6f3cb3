"""The benchmarks: their pure parts, and a tiny run of each kind, in which no time is judged."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import struct
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks import frames
from benchmarks.__main__ import choose_cores, parse, select_scenarios, write_certificates
from benchmarks.chart import render_svg
from benchmarks.generator import Generator, build_load, build_messages, build_replies
from benchmarks.load import unmask, unpack
from benchmarks.measure import Measurement, Setup, measure
from benchmarks.processes import Process, ProcessError
from benchmarks.report import Circumstances, format_cost, render_json, render_markdown
from benchmarks.scenarios import GROUPS, SCENARIOS
from benchmarks.summary import Cell, Loss, count_disturbed, find_losses, summarize
from benchmarks.variants import BASELINE, VARIANTS, select_variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scenarios import Scenario

SCENARIO = {scenario.key: scenario for scenario in SCENARIOS}
VARIANT = {variant.name: variant for variant in VARIANTS}
OURS = "anyws-asyncio-c"

CIRCUMSTANCES = Circumstances(
    date="2026-01-02 03:04 UTC",
    machine="a machine",
    versions={"anyws": "1.2.3"},
    command="python -m benchmarks --rounds 2",
    rounds=2,
    seconds=0.5,
    language="C",
    cores=(1, 0),
    sleep=False,
    pause=100.0,
    load=0.25,
    quick=False,
)

# Frames and handshakes.


def test_accept_key_is_that_of_the_rfc() -> None:
    assert frames.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_client_frame_is_that_of_the_rfc() -> None:
    expected = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    assert frames.client_frame(b"Hello", opcode=frames.TEXT) == expected


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_length_takes_as_many_bytes_as_it_needs(size: int, header: bytes) -> None:
    frame = frames.build_frame(bytes(size))
    assert frame == header + bytes(size)
    assert frames.split_frame(frame) == (header, bytes(size))


@pytest.mark.parametrize(
    "data", [b"", b"\x82", b"\x82\x02a", b"\x82\x7e\x00", b"\x82\x7e\x00\x7ea"]
)
def test_frame_is_not_split_when_it_is_not_whole(data: bytes) -> None:
    assert frames.split_frame(data) is None


def test_request_offers_the_extension() -> None:
    first, fields = frames.parse_head(frames.build_request("localhost:8000", frames.DEFLATE_OFFER))
    assert first == "GET / HTTP/1.1"
    assert fields["host"] == "localhost:8000"
    assert fields["sec-websocket-extensions"] == frames.DEFLATE_OFFER


def test_response_accepts_the_key() -> None:
    first, fields = frames.parse_head(frames.build_response("dGhlIHNhbXBsZSBub25jZQ=="))
    assert first == "HTTP/1.1 101 Switching Protocols"
    assert fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_json_has_its_size_and_is_json() -> None:
    text = frames.build_json(1024)
    assert len(text) == 1024
    assert json.loads(text)[0].keys() == {"id", "side", "price"}


def test_deflated_message_needs_a_window_of_1_kib_only() -> None:
    message = frames.build_json(1024)
    compressed = frames.deflate(message)
    assert len(compressed) < 512
    assert zlib.decompressobj(wbits=-10).decompress(compressed + b"\x00\x00\xff\xff") == message


# Compressed replies, which the server chooses.


def compressed_replies(*messages: bytes, level: int = 6) -> list[bytes]:
    compressor = zlib.compressobj(level, wbits=-12)
    replies = []
    for message in messages:
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        payload = data.removesuffix(b"\x00\x00\xff\xff")
        replies.append(frames.build_frame(payload, opcode=frames.TEXT, rsv1=True))
    return replies


def cut_reply(message: bytes) -> bytes:
    (header, payload) = frames.split_frame(compressed_replies(message)[0]) or (b"", b"")
    return bytes([header[0], len(payload) - 1]) + payload[:-1]


def final_reply(message: bytes, rest: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    payload = compressor.compress(message) + compressor.flush() + rest
    return frames.build_frame(payload, opcode=frames.TEXT, rsv1=True)


def chunk(connection: int, data: bytes) -> bytes:
    return struct.pack("<II", connection, len(data)) + data


def test_recorded_replies_are_the_messages_in_turn_on_each_connection() -> None:
    messages = [b"one " * 9, b"two " * 9]
    first = b"".join(compressed_replies(*messages, *messages, messages[0]))
    other = b"".join(compressed_replies(messages[0], level=1))
    record = chunk(7, first[:11]) + chunk(9, other) + chunk(7, first[11:])
    assert frames.check_deflated(record, messages) == 6


@pytest.mark.parametrize(
    ("replies", "problem"),
    [
        (b"\xc1", "reply 0 on connection 3 is no whole frame"),
        (b"\x81\x02ab", "reply 0 on connection 3 is not compressed Text, but 0x81"),
        (compressed_replies(b"other")[0], "reply 0 on connection 3 is another message"),
        (
            b"".join(compressed_replies(b"ab" * 50, b"ab" * 50)),
            "reply 1 on connection 3 is another message",
        ),
        (
            b"\xc1\x03\xff\xff\xff",
            "reply 0 on connection 3 is corrupt: Error -3 while decompressing data: .*",
        ),
        (
            cut_reply(b"ab" * 50),
            "reply 0 on connection 3 is corrupt: Error -3 while decompressing data: .*",
        ),
        (
            final_reply(b"ab" * 50, b"garbage"),
            "reply 0 on connection 3 has more or less than its blocks",
        ),
    ],
)
def test_recorded_replies_are_refused(replies: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        frames.check_deflated(chunk(3, replies), [b"ab" * 50, b"cd" * 50])


# What the load generator is given.


def test_frames_come_out_of_their_file_as_they_went_in() -> None:
    packed = frames.pack([b"ab", b"", b"c"])
    assert packed == b"\x02\x00\x00\x00ab\x00\x00\x00\x00\x01\x00\x00\x00c"
    assert unpack(packed) == [b"ab", b"", b"c"]


def test_masked_reply_is_compared_as_with_a_key_of_zeros() -> None:
    reply = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    assert unmask(reply, 2) == b"\x81\x85\x00\x00\x00\x00Hello"
    assert unmask(reply, 2) == frames.expected_client_frame(b"Hello", opcode=frames.TEXT)


def test_counting_client_is_fed_a_batch_and_a_mark() -> None:
    scenario = dataclasses.replace(SCENARIO["S9a"], size=2, batch=3)
    assert build_load(scenario) == [b"\x82\x02\x00\x01" * 3 + b"\x81\x01?"]
    assert build_replies(scenario) == [b"\x81\x83\x00\x00\x00\x004 7"]


def test_messages_to_compress_do_not_repeat_within_a_window() -> None:
    messages = build_messages(SCENARIO["S6"])
    assert len(set(messages)) == len(messages)
    assert sum(map(len, messages)) > 2**15
    assert len(build_load(SCENARIO["S6"])) == len(messages)


def test_closing_server_sends_the_close_code_back() -> None:
    assert build_replies(SCENARIO["S8"]) == [b"\x88\x02\x03\xe8"]


# The tables and the command line.


def test_each_scenario_stands_in_a_table_of_the_report() -> None:
    assert {key for keys in GROUPS.values() for key in keys} == set(SCENARIO)


def test_each_variant_has_its_programs() -> None:
    root = Path(frames.__file__).parent
    wanted = {root / "servers" / f"{variant.module}.py" for variant in VARIANTS}
    wanted |= {root / "clients" / f"{variant.module}.py" for variant in VARIANTS if variant.client}
    assert [path for path in wanted if not path.is_file()] == []


def test_baseline_is_always_among_the_variants() -> None:
    assert [variant.name for variant in select_variants(["raw-trio"])] == [BASELINE, "raw-trio"]


@pytest.mark.parametrize("words", [["--scenarios", "S1,S0"], ["--variants", "flask-*"]])
def test_unknown_names_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert "; there are: " in capsys.readouterr().err


def test_scenarios_come_in_the_order_of_the_table() -> None:
    assert [scenario.key for scenario in select_scenarios(["S3", "S1"])] == ["S1", "S3"]


def test_quick_run_is_one_round_of_small_scenarios() -> None:
    arguments = parse(["--quick", "--scenarios", "N5000"])
    assert arguments.rounds == 1
    assert [scenario.connections for scenario in arguments.scenarios] == [100]


@pytest.mark.parametrize(
    ("variant", "scenario", "obstacle"),
    [
        ("raw-asyncio", "S9a", "no client of its own"),
        ("trio-websocket", "S6", "no permessage-deflate"),
        ("anyws-trio-isal", "S1", "differs in permessage-deflate alone"),
        ("anyws-trio-isal", "S6", None),
        ("raw-trio", "S1t", "not measured over TLS"),
        ("raw-trio", "S8", "no handshake"),
        ("bare-trio", "B1000", "no broadcast"),
        ("bare-trio", "S8", None),
        (OURS, "S8", None),
    ],
)
def test_variant_says_what_it_cannot_do(variant: str, scenario: str, obstacle: str | None) -> None:
    assert VARIANT[variant].obstacle(SCENARIO[scenario]) == obstacle


# The arithmetic.


def measured(variant: str, *costs: float | None, scenario: str = "S1") -> list[Measurement]:
    return [
        Measurement(scenario, variant, number, cost, problem=None if cost else "it broke")
        for number, cost in enumerate(costs)
    ]


def test_ratio_is_the_median_of_ratios_within_rounds() -> None:
    summary = summarize([*measured(BASELINE, 10, 30, 20), *measured(OURS, 5, 10, 20)])
    assert summary["S1", OURS] == Cell(10, 2.0, 1.0, 3.0, 0, None)
    assert summary["S1", BASELINE] == Cell(20, 1.0, 1.0, 1.0, 0, None)


def test_failed_rounds_have_no_part_in_the_figures() -> None:
    summary = summarize([*measured(BASELINE, 10, None, 20), *measured(OURS, None, 5, 10)])
    assert summary["S1", OURS] == Cell(7.5, 2.0, 2.0, 2.0, 1, "it broke")


def test_there_is_no_figure_when_every_round_failed() -> None:
    summary = summarize(measured(OURS, None, None))
    assert summary["S1", OURS] == Cell(None, None, None, None, 2, "it broke")


def test_losses_are_found_on_the_same_loop() -> None:
    summary = summarize([
        *measured(OURS, 6), *measured(BASELINE, 8), *measured("picows-asyncio", 4),
        *measured("raw-asyncio", 1), *measured("bare-asyncio", 2), *measured("picows-uvloop", 2),
        *measured("anyws-trio-c", 9),
    ])  # fmt: skip
    assert find_losses(summary, VARIANTS) == [Loss("S1", "asyncio", OURS, "picows-asyncio", 1.5)]


def test_measurements_are_disturbed_when_others_use_the_core() -> None:
    quiet = Measurement("S1", OURS, 0, 1.0, foreign=0.05)
    assert count_disturbed([quiet, dataclasses.replace(quiet, foreign=0.2)]) == 1


# The report.


@pytest.mark.parametrize(("cost", "text"), [(1234.5, "1234"), (12.345, "12.3"), (0.4567, "0.46")])
def test_costs_have_three_digits_or_so(cost: float, text: str) -> None:
    assert format_cost(cost) == text


def report(measurements: list[Measurement], circumstances: Circumstances = CIRCUMSTANCES) -> str:
    return render_markdown(
        circumstances,
        summarize(measurements),
        measurements,
        [SCENARIO["S1"], SCENARIO["S6"]],
        [VARIANT[OURS], VARIANT[BASELINE], VARIANT["trio-websocket"]],
    )


def test_report_has_figures_failures_and_what_was_not_run() -> None:
    text = report([
        *measured(OURS, 20, 20), *measured(BASELINE, 10, 30), *measured("trio-websocket", None, 40),
        *measured(OURS, None, None, scenario="S6"),
    ])  # fmt: skip
    lines = text.splitlines()
    assert f"| **{OURS}** | 20.0 [1.00; 0.50 to 1.50] | FAILED |" in lines
    assert f"| {BASELINE} | 20.0 [1.00; 1.00 to 1.00] | not run |" in lines
    wanted = "| trio-websocket | 40.0 [0.75; 0.75 to 0.75] (1 FAILED) | no permessage-deflate |"
    assert wanted in lines
    assert f"- S6, {OURS}, 2 rounds: it broke" in lines


def test_report_names_its_circumstances() -> None:
    text = report(measured(BASELINE, 10, 10))
    for value in (
        "2026-01-02 03:04 UTC",
        "a machine",
        "anyws 1.2.3",
        "`python -m benchmarks --rou",
    ):
        assert value in text
    assert "\n> " not in text


def test_report_warns_of_what_makes_figures_worthless() -> None:
    circumstances = dataclasses.replace(CIRCUMSTANCES, quick=True, language="Python", cores=(0, 0))
    disturbed = Measurement("S1", OURS, 0, 1.0, foreign=0.5, details={"codec": "python"})
    warnings = [line for line in report([disturbed], circumstances).splitlines() if line[:1] == ">"]
    assert len(warnings) == 5
    assert warnings[-1] == f"> `{OURS}` ran with the codec 'python': there was no other."


def test_report_shows_where_a_peer_is_cheaper() -> None:
    lines = report([*measured(OURS, 20), *measured(BASELINE, 10)]).splitlines()
    assert f"| S1 | asyncio | {OURS} | {BASELINE} | 2.00 times as much |" in lines


def test_raw_numbers_can_be_written_as_json() -> None:
    value = json.loads(json.dumps(render_json(CIRCUMSTANCES, measured(OURS, 20))))
    assert value["circumstances"]["rounds"] == 2
    assert value["measurements"][0]["cost"] == 20


def test_chart_is_xml_with_a_bar_for_each_figure() -> None:
    measurements = [
        *measured(BASELINE, 10), *measured(OURS, 5), *measured("picows-asyncio", None),
        *measured("trio-websocket", 99),
    ]  # fmt: skip
    text = render_svg(CIRCUMSTANCES, summarize(measurements), [SCENARIO["S1"]], VARIANTS)
    root = ET.fromstring(text)
    bars = [e for e in root.iter() if e.get("class", "").startswith("bar-")]
    labels = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert [bar.get("class") for bar in bars] == ["bar-ours", "bar-base", "bar-peer"]
    assert {"5.00 [2.00]", "10.0 [1.00]", "failed", "→ 99.0 [0.10]"} <= set(labels)


# One tiny run, in processes of their own.

linux = pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from Linux's /proc")


def setup(directory: Path, compiler: list[str] | None = None, *, sleep: bool = False) -> Setup:
    endpoint_core, load_core = choose_cores()
    generator = Generator(directory, compiler, sleep=sleep, pause=0.0001)
    return Setup(generator, directory, endpoint_core, load_core, seconds=0.02, warmup=0.0)


def compiler(language: str) -> list[str]:
    if language == "C" and shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    return ["cc"] if language == "C" else ["/bin/false"]


@linux
@pytest.mark.parametrize(
    ("key", "sleep"),
    [("S1", True), ("S8", True)]
    + [(key, False) for key in ("S1", "S6", "S7", "S8", "B1000", "S9a", "S10")],
)
@pytest.mark.parametrize("language", ["C", "Python"])
def test_anyws_is_measured(key: str, sleep: bool, language: str, tmp_path: Path) -> None:
    settings = setup(tmp_path, compiler(language), sleep=sleep)
    assert settings.generator.language == language
    scenario = dataclasses.replace(
        SCENARIO[key],
        connections=min(SCENARIO[key].connections, 3),
        more=20,
        max_operations=20,
        batch=min(SCENARIO[key].batch, 10),
    )
    result = measure(settings, VARIANT[OURS], scenario, 0)
    assert result.problem is None
    assert result.operations > 0
    assert result.cpu_ns > 0


@linux
@pytest.mark.parametrize("name", ["bare-asyncio", "bare-uvloop", "bare-trio"])
@pytest.mark.parametrize("key", ["S1", "S2", "S5", "S8", "S9a", "S10"])
def test_bounds_are_measured(key: str, name: str, tmp_path: Path) -> None:
    scenario = dataclasses.replace(SCENARIO[key], max_operations=100, batch=1)
    result = measure(setup(tmp_path), VARIANT[name], scenario, 0)
    assert result.problem is None
    assert result.operations > 0


@linux
def test_anyws_is_measured_over_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    scenario = dataclasses.replace(SCENARIO["S1t"], max_operations=20)
    result = measure(setup(tmp_path), VARIANT[OURS], scenario, 0)
    assert result.problem is None
    assert result.operations > 0


@linux
def test_wrong_replies_are_a_failure(tmp_path: Path) -> None:
    # This server sends what it gets; so the masked frame comes back, and not the one that is due.
    raw = dataclasses.replace(VARIANT["raw-asyncio"], raw=False)
    scenario = dataclasses.replace(SCENARIO["S1"], max_operations=1)
    result = measure(setup(tmp_path), raw, scenario, 0)
    assert result.cost is None
    assert result.problem is not None
    assert "the opening handshake was answered with GET / HTTP/1.1" in result.problem


@linux
@pytest.mark.parametrize("language", ["C", "Python"])
def test_wrong_compressed_replies_are_a_failure(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = setup(tmp_path, compiler(language))
    sent = build_load(SCENARIO["S6"])
    monkeypatch.setattr("benchmarks.generator.build_load", lambda _: [sent[0], sent[2]])
    scenario = dataclasses.replace(SCENARIO["S6"], max_operations=2)
    result = measure(settings, VARIANT[OURS], scenario, 0)
    assert result.problem == "reply 1 on connection 0 is another message"


@contextmanager
def generating(
    directory: Path, language: str, scenario: Scenario
) -> Iterator[tuple[Process, socket.socket]]:
    """Start the load generator, with the test itself as its server; give both ends."""
    settings = setup(directory, compiler(language))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = settings.generator.command(scenario, 0.02, 0.02, port=port, raw=True)
        with Process(command, settings.load_core) as load:
            connection, _ = listener.accept()
            with connection:
                yield load, connection


@linux
@pytest.mark.parametrize("language", ["C", "Python"])
def test_replies_that_nobody_asked_for_are_a_failure(language: str, tmp_path: Path) -> None:
    with generating(tmp_path, language, SCENARIO["S1"]) as (load, connection):
        connection.sendall(connection.recv(1000) * 2)
        assert load.read_line(10).startswith("error a reply that nobody asked for")


@linux
@pytest.mark.parametrize("language", ["C", "Python"])
def test_masked_reply_is_a_failure_where_replies_are_recorded(
    language: str, tmp_path: Path
) -> None:
    with generating(tmp_path, language, SCENARIO["S6"]) as (load, connection):
        connection.sendall(connection.recv(1000))  # as it came, masked
        assert load.read_line(10) == "error reply 0 is masked"


@linux
@pytest.mark.parametrize("language", ["C", "Python"])
def test_requests_of_a_cycle_leave_in_their_order(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [bytes([number]) * size for number, size in enumerate((2**20, 1, 2**20, 70_000))]
    monkeypatch.setattr("benchmarks.generator.build_load", lambda _: requests)
    # The server says nothing until it has a whole window, which no buffer of a socket holds.
    scenario = dataclasses.replace(SCENARIO["S2"], window=6, max_operations=6)
    wanted = b"".join([*requests, *requests[:2]])
    with generating(tmp_path, language, scenario) as (load, connection):
        with connection.makefile("rb") as stream:
            assert stream.read(len(wanted)) == wanted
        load.write_line()


@linux
def test_server_that_does_not_start_is_a_failure(tmp_path: Path) -> None:
    missing = dataclasses.replace(VARIANT[OURS], module="missing")
    result = measure(setup(tmp_path), missing, SCENARIO["S1"], 0)
    assert result.problem is not None
    assert result.problem.endswith("No module named benchmarks.servers.missing")


@linux
def test_process_that_says_nothing_is_an_error() -> None:
    command = [sys.executable, "-c", "input()"]
    with Process(command, choose_cores()[0]) as process:
        with pytest.raises(ProcessError, match=r"^silent for 0\.01 seconds$"):
            process.read_line(0.01)
