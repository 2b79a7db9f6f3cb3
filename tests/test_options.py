"""The options of a connection: the marks that they stand for, and values that make no sense."""

from __future__ import annotations

import functools
import re
import socket
import ssl
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from anyio.streams.stapled import MultiListener
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

import anyws
from anyws._arguments import (
    ReconnectArguments,
    ServeArguments,
    UnixServeArguments,
    WrapClientArguments,
    WrapServerArguments,
)
from anyws._options import ConnectionOptions, Limits, parse_marks
from anyws.testing import memory_stream_pair

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("limits", "marks"),
    [
        pytest.param(100, (100, 25), id="high"),
        pytest.param(1, (1, 0), id="least"),
        pytest.param(7, (7, 1), id="rounded-down"),
        pytest.param((100, 40), (100, 40), id="both"),
        pytest.param((100, 100), (100, 100), id="equal"),
        pytest.param((100, 0), (100, 0), id="low-is-zero"),
        pytest.param((100, None), (100, 25), id="high-alone"),
        pytest.param(None, (None, None), id="none"),
        pytest.param((None, None), (None, None), id="none-twice"),
        pytest.param((None, 40), (None, None), id="low-alone"),
    ],
)
def test_limits_give_the_high_and_the_low_mark(
    limits: Limits, marks: tuple[int | None, int | None]
) -> None:
    assert parse_marks("max_queue", limits, 4) == marks


@pytest.mark.parametrize("limits", [0, -1, (0, 0)])
def test_limits_are_refused_when_the_high_mark_is_under_1(limits: Limits) -> None:
    with pytest.raises(ValueError, match=r"^max_queue of (0|-1) is under 1$"):
        parse_marks("max_queue", limits, 4)


@pytest.mark.parametrize("low", [-1, 11])
def test_limits_are_refused_when_the_low_mark_is_outside(low: int) -> None:
    with pytest.raises(
        ValueError, match=f"^low mark {low} of read_limit is not between 0 and the high mark 10$"
    ):
        parse_marks("read_limit", (10, low), 2)


def test_low_marks_are_a_quarter_of_the_high_ones_and_half_of_the_read_limit() -> None:
    options = ConnectionOptions(max_queue=100, read_limit=100, write_limit=100)
    assert options.queue_marks == (100, 25)
    assert options.read_marks == (100, 50)
    assert options.write_marks == (100, 25)


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "close_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.5, float("nan")])
def test_time_that_is_not_above_0_is_refused(name: str, seconds: float) -> None:
    arguments: dict[str, Any] = {name: seconds}
    with pytest.raises(
        ValueError, match=f"^{name} of {seconds} seconds is not above 0; None does without$"
    ):
        ConnectionOptions(**arguments)


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
@pytest.mark.parametrize("seconds", ["1", (1,), Decimal(1), True], ids=repr)
def test_time_that_is_no_number_is_a_type_error_of_the_call(name: str, seconds: Any) -> None:
    kind = type(seconds).__name__
    with pytest.raises(
        TypeError, match=f"^{name} must be a number of seconds or None, not {kind}$"
    ):
        anyws.connect("ws://localhost/", **{name: seconds})


# Such as 1e6, a million in another form: the codec in C takes no float.
@pytest.mark.parametrize("name", ["max_size", "max_queue", "read_limit", "write_limit"])
@pytest.mark.parametrize(
    "limit", [1e6, "1000", [16, 4], (16,), (16, 4.0), (None, "4"), True], ids=repr
)
def test_limit_that_is_no_integer_is_a_type_error_of_the_call(name: str, limit: Any) -> None:
    with pytest.raises(
        TypeError,
        match=f"^{name} must be an int, a pair of ints, or None, not (float|str|list|tuple|bool)$",
    ):
        anyws.connect("ws://localhost/", **{name: limit})


@pytest.mark.parametrize("context", [True, False, "certificate.pem"])
def test_ssl_that_is_no_context_is_a_type_error_of_the_call(context: Any) -> None:
    text = f"^ssl must be a ssl.SSLContext or None, not {type(context).__name__}$"
    with pytest.raises(TypeError, match=text):
        anyws.connect("wss://localhost/", ssl=context)
    with pytest.raises(TypeError, match=text):
        anyws.serve(handler, ssl=context)


@pytest.mark.parametrize("logger", ["anyws", print])
def test_logger_that_cannot_log_is_a_type_error_of_the_call(logger: Any) -> None:
    text = r"^logger must be a logging.Logger, a LoggerAdapter or None, not (str|builtin_function)"
    with pytest.raises(TypeError, match=text):
        anyws.connect("ws://localhost/", logger=logger)
    with pytest.raises(TypeError, match=text):
        anyws.serve(handler, logger=logger)


async def handler(ws: anyws.Connection) -> None:
    """Never runs."""


@pytest.mark.parametrize(
    ("host", "port", "error", "text"),
    [
        (8765, 8765, TypeError, "host must be a str or None, not int"),
        ("localhost", "8765", TypeError, "port must be an int, not str"),
        ("localhost", None, TypeError, "port must be an int, not NoneType"),
        ("localhost", True, TypeError, "port must be an int, not bool"),
        ("localhost", -1, ValueError, r"port -1 is not in 0\.\.65535"),
        ("localhost", 65536, ValueError, r"port 65536 is not in 0\.\.65535"),
    ],
)
def test_place_where_nothing_can_listen_is_an_error_of_the_call(
    host: Any, port: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        anyws.serve(handler, host, port)


def test_extension_of_another_library_is_a_type_error_of_the_call() -> None:
    other: Any = [ServerPerMessageDeflateFactory()]
    text = "not ServerPerMessageDeflateFactory"
    with pytest.raises(
        TypeError, match=f"^extensions must be of anyws.sansio.ServerExtension, {text}$"
    ):
        anyws.serve(handler, extensions=other)
    with pytest.raises(
        TypeError, match=f"^extensions must be of anyws.sansio.ClientExtension, {text}$"
    ):
        anyws.connect("ws://localhost/", extensions=other)


def test_socket_is_no_stream_and_no_listener() -> None:
    with socket.socket() as any_socket:
        wrong: Any = any_socket
        text = r"^stream must be an anyio\.abc\.ByteStream, not a socket: SocketStream\.from_socket"
        with pytest.raises(TypeError, match=text):
            anyws.connect("ws://localhost/", stream=wrong)
        with pytest.raises(TypeError, match=text):
            anyws.wrap_client(wrong)
        with pytest.raises(TypeError, match=text):
            anyws.wrap_server(wrong)
        with pytest.raises(
            TypeError,
            match=r"^listeners must be of anyio\.abc\.Listener, not sockets: anyio\.abc\.Socket",
        ):
            anyws.serve(handler, listeners=[wrong])


def test_context_for_the_other_side_of_tls_is_a_value_error_of_the_call() -> None:
    for_clients = ssl.create_default_context()
    for_servers = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with pytest.raises(ValueError, match=r"^ssl is a context for clients, expected"):
        anyws.serve(handler, ssl=for_clients)
    text = "is a context for servers, expected one for clients"
    with pytest.raises(ValueError, match=f"^ssl {text}"):
        anyws.connect("wss://localhost/", ssl=for_servers)
    with pytest.raises(ValueError, match=f"^proxy_ssl {text}"):
        anyws.connect("ws://localhost/", proxy="https://proxy", proxy_ssl=for_servers)


def test_handler_that_cannot_be_called_is_a_type_error_of_the_call() -> None:
    wrong: Any = None
    with pytest.raises(TypeError, match=r"^handler must be a function, not NoneType$"):
        anyws.serve(wrong)


@pytest.mark.parametrize(
    ("name", "wrong", "problem"),
    [
        ("handler", lambda: None, "handler must take (ws), and takes ()"),
        (
            "process_request",
            lambda connection, request: (connection, request),  # as in websockets
            "process_request must take (request), and takes (connection, request)",
        ),
        (
            "process_response",
            lambda response: response,
            "process_response must take (request, response), and takes (response)",
        ),
        (
            "select_subprotocol",
            lambda offered: offered[0],
            "select_subprotocol must take (request, offered), and takes (offered)",
        ),
    ],
)
def test_function_that_takes_something_else_is_a_type_error_of_the_call(
    name: str, wrong: Any, problem: str
) -> None:
    arguments = {"handler": handler, name: wrong}
    with pytest.raises(TypeError, match=f"^{re.escape(problem)}$"):
        anyws.serve(**arguments)


@pytest.mark.parametrize("name", ["select_subprotocol", "process_request", "process_response"])
def test_hook_that_cannot_be_called_is_a_type_error_of_the_call(name: str) -> None:
    hook: dict[str, Any] = {name: "hook"}
    with pytest.raises(TypeError, match=f"^{name} must be a function, not str$"):
        anyws.serve(handler, **hook)


def test_max_connections_that_is_no_integer_is_a_type_error_of_the_call() -> None:
    wrong: Any = 1.5
    with pytest.raises(TypeError, match=r"^max_connections must be an int, not float$"):
        anyws.serve(handler, max_connections=wrong)


@pytest.mark.parametrize(
    "name",
    ["host", "port", "listeners", "reuse_port", "backlog", "max_connections", "handler_errors"],
)
def test_argument_of_listening_is_a_type_error_where_a_stream_is_wrapped(name: str) -> None:
    near, _ = memory_stream_pair()
    wrong: Any = {name: None}
    with pytest.raises(TypeError, match=rf"^wrap_server\(\) has no use for the argument '{name}'$"):
        anyws.wrap_server(near, **wrong)


@pytest.mark.parametrize("name", ["host", "port", "listeners", "reuse_port"])
def test_argument_of_tcp_is_a_type_error_where_a_path_is_given(name: str) -> None:
    wrong: Any = {name: None}
    with pytest.raises(TypeError, match=rf"^unix_serve\(\) has no use for the argument '{name}'$"):
        anyws.unix_serve(handler, "a.sock", **wrong)


def test_stream_is_a_type_error_where_a_path_is_given() -> None:
    near, _ = memory_stream_pair()
    with pytest.raises(TypeError, match=r"^unix_connect\(\) has no use for the argument 'stream'$"):
        anyws.unix_connect("a.sock", stream=near)  # type: ignore[call-arg]  # that is it


@pytest.mark.parametrize(
    ("passed_on", "function", "own"),
    [
        (ReconnectArguments, anyws.connect, {"uri", "stream"}),
        (
            WrapClientArguments,
            anyws.connect,
            {"uri", "stream", "proxy", "proxy_ssl", "max_redirects"},
        ),
        (ServeArguments, anyws.serve, {"handler", "host", "port"}),
        (
            UnixServeArguments,
            anyws.serve,
            {"handler", "host", "port", "listeners", "reuse_port"},
        ),
        (
            WrapServerArguments,
            anyws.serve,
            {"handler", "host", "port", "listeners", "reuse_port", "backlog", "max_connections"}
            | {"handler_errors"},
        ),
    ],
)
def test_arguments_that_are_passed_on_are_those_of_the_function_below(
    passed_on: type, function: Callable[..., Any], own: set[str]
) -> None:
    parameters = get_type_hints(function.__init__)
    del parameters["return"]
    assert own < parameters.keys()
    assert get_type_hints(passed_on) == {
        name: kind for name, kind in parameters.items() if name not in own
    }


def test_none_is_no_limit() -> None:
    options = ConnectionOptions(None, None, None, None, None, None, None)
    assert options.queue_marks == options.read_marks == options.write_marks == (None, None)


def test_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_size of -1 bytes is negative$"):
        ConnectionOptions(max_size=(None, -1))


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
def test_time_that_no_clock_has_is_a_value_error_of_the_call(name: str) -> None:
    arguments: dict[str, Any] = {name: 10**400}
    with pytest.raises(ValueError, match=f"^{name} has too many seconds for a clock; None does w"):
        anyws.connect("ws://localhost/", **arguments)


@pytest.mark.parametrize("wrong", [5, "stream", None])
def test_what_is_no_stream_is_a_type_error_of_the_call(wrong: Any) -> None:
    text = rf"^stream must be an anyio\.abc\.ByteStream, not {type(wrong).__name__}$"
    with pytest.raises(TypeError, match=text):
        anyws.wrap_client(wrong)
    with pytest.raises(TypeError, match=text):
        anyws.wrap_server(wrong)


@pytest.mark.parametrize(
    ("listeners", "error", "text"),
    [
        ([5], TypeError, r"listeners must be of anyio\.abc\.Listener, not int"),
        ([], ValueError, "listeners has none; None listens on host and port"),
        (
            MultiListener([]),
            TypeError,
            "listeners must be a list of listeners, not one that is a MultiListener",
        ),
    ],
)
def test_listeners_that_cannot_listen_are_an_error_of_the_call(
    listeners: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        anyws.serve(handler, listeners=listeners)


def test_reuse_port_that_is_no_bool_is_an_error_of_the_call() -> None:
    with pytest.raises(TypeError, match="reuse_port must be a bool, not int"):
        anyws.serve(handler, reuse_port=1)  # type: ignore[arg-type]  # that is it


class ObjectStream:
    """What gives objects, and takes no size."""

    async def send(self, item: bytes) -> None: ...

    async def receive(self) -> bytes:
        return b""

    async def aclose(self) -> None: ...


def test_stream_that_takes_no_size_is_an_error_of_the_call() -> None:
    text = r"stream must be .*ByteStream, whose receive\(\) takes a size, not ObjectStream"
    with pytest.raises(TypeError, match=f"^{text}$"):
        anyws.wrap_client(ObjectStream())  # type: ignore[arg-type]  # that is it
    with pytest.raises(TypeError, match=f"^{text}$"):
        anyws.wrap_server(ObjectStream())  # type: ignore[arg-type]  # likewise


class AdaptedStream(ObjectStream):
    """One whose method takes a size, and is called like one that takes none."""

    @functools.wraps(ObjectStream.receive)
    async def receive(self, max_bytes: int = 65536) -> bytes:  # type: ignore[override]  # so
        return b""


def test_stream_whose_receive_wraps_one_that_takes_no_size_is_taken() -> None:
    anyws.wrap_client(AdaptedStream())  # type: ignore[arg-type]  # likewise


class NativeStream(ObjectStream):
    """One whose method does not tell its parameters, as those that are written in C."""

    receive = max  # type: ignore[assignment]  # its signature cannot be told


def test_stream_whose_receive_does_not_tell_what_it_takes_is_taken() -> None:
    anyws.wrap_client(NativeStream())  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        (None, TypeError, "path must be a str or a path, not NoneType"),
        (5, TypeError, "path must be a str or a path, not int"),
        ("", ValueError, "path is empty"),
    ],
)
def test_path_that_is_none_is_an_error_of_the_call(
    path: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        anyws.unix_serve(handler, path)
    with pytest.raises(error, match=f"^{text}$"):
        anyws.unix_connect(path)


@pytest.mark.parametrize(
    ("backlog", "error", "text"),
    [
        ("5", TypeError, "backlog must be an int, not str"),
        (-1, ValueError, "backlog of -1 is negative"),
    ],
)
def test_backlog_that_is_none_is_an_error_of_the_call(
    backlog: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        anyws.serve(handler, backlog=backlog)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        (b"a.example", TypeError, "server_hostname must be a str or None, not bytes"),
        ("", ValueError, "server_hostname is empty; None takes the host of the URI"),
        (".a", ValueError, r"server_hostname '\.a' is no host name: .*label.*"),
        ("a\0b", ValueError, r"server_hostname 'a\\x00b' has a NUL"),
    ],
)
def test_server_hostname_that_is_none_is_an_error_of_the_call(
    name: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        anyws.connect("wss://localhost/", server_hostname=name)


def test_server_hostname_without_tls_is_a_value_error_of_the_call() -> None:
    text = r"^server_hostname='a\.example' is given, but no TLS: that takes a wss URI, or ssl with"
    with pytest.raises(ValueError, match=text):
        anyws.connect("ws://localhost/", server_hostname="a.example")
    stream, _ = memory_stream_pair()
    with pytest.raises(ValueError, match=text):
        anyws.connect("wss://localhost/", stream=stream, server_hostname="a.example")


async def select_slowly(request: anyws.Request, offered: object) -> None:
    """Choose nothing."""


class SlowSelector:
    async def __call__(self, request: anyws.Request, offered: object) -> None:
        """Choose nothing."""


@pytest.mark.parametrize(
    "wrong",
    [select_slowly, functools.partial(select_slowly), SlowSelector()],
    ids=["function", "partial", "object"],
)
def test_select_subprotocol_that_is_async_is_a_type_error_of_the_call(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^select_subprotocol must be a plain function, not an as"):
        anyws.serve(handler, select_subprotocol=wrong)
