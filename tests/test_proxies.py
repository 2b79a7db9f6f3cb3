"""Which proxy is taken: from the arguments, from the environment, or none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from typing import Any

import anyio
import pytest

import anyws
from anyws._proxies import find_proxy, is_exempt
from anyws.sansio import parse_uri
from anyws.testing import memory_stream_pair
from tests.proxying import uninstall_python_socks
from tests.tls import client_context

# no_proxy.


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "exempt"),
    [
        ("", "example.com", 80, False),
        (" , ,", "example.com", 80, False),
        ("*", "example.com", 80, True),
        ("a.example, *", "example.com", 80, True),
        # Names.
        ("example.com", "example.com", 80, True),
        ("example.com", "www.example.com", 80, True),
        ("example.com", "a.b.example.com", 80, True),
        ("example.com", "notexample.com", 80, False),
        ("example.com", "example.com.org", 80, False),
        ("example.com", "com", 80, False),
        (".example.com", "example.com", 80, True),
        (".example.com", "www.example.com", 80, True),
        (".example.com", "notexample.com", 80, False),
        ("*.example.com", "www.example.com", 80, True),
        ("*.example.com", "notexample.com", 80, False),
        ("*ample.com", "example.com", 80, False),
        ("www.example.com", "example.com", 80, False),
        ("EXAMPLE.com", "example.com", 80, True),
        ("example.com.", "example.com", 80, True),
        ("example.com", "example.com.", 80, True),
        ("m\xfcnchen.example", "xn--mnchen-3ya.example", 80, True),
        ("\xfc" * 70, "example.com", 80, False),
        (".", "example.com", 80, False),
        # Lists.
        ("a.example,example.com", "example.com", 80, True),
        (" a.example ,\texample.com ", "example.com", 80, True),
        ("a.example example.com", "example.com", 80, True),
        ("a.example,b.example", "example.com", 80, False),
        # Ports.
        ("example.com:8080", "example.com", 8080, True),
        ("example.com:8080", "www.example.com", 8080, True),
        ("example.com:8080", "example.com", 80, False),
        ("example.com:", "example.com", 80, True),
        ("example.com:http", "example.com", 80, False),
        ("10.0.0.1:8080", "10.0.0.1", 8080, True),
        ("10.0.0.1:8080", "10.0.0.1", 80, False),
        ("[::1]:8080", "::1", 8080, True),
        ("[::1]:8080", "::1", 80, False),
        # Addresses.
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1", "10.0.0.10", 80, False),
        ("0.0.1", "10.0.0.1", 80, False),
        ("1", "10.0.0.1", 80, False),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.1.2.3/8", "10.9.9.9", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/8:8080", "10.1.2.3", 8080, True),
        ("10.0.0.0/33", "10.0.0.0", 80, False),
        ("0.0.0.0/0", "::1", 80, False),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("0:0:0:0:0:0:0:1", "::1", 80, True),
        ("2001:db8::/32", "2001:db8:1::1", 80, True),
        ("[2001:db8::]/32", "2001:db8:1::1", 80, True),
        ("2001:db8::/32", "2001:db9::1", 80, False),
        ("fe80::/10", "fe80::1%eth0", 80, True),
        ("10.0.0.0/8", "ten.example", 80, False),
        # The loopback is no exception.
        ("", "localhost", 80, False),
        ("", "127.0.0.1", 80, False),
        ("localhost,127.0.0.0/8,::1", "localhost", 80, True),
        ("localhost,127.0.0.0/8,::1", "127.0.0.1", 80, True),
        ("localhost,127.0.0.0/8,::1", "::1", 80, True),
        ("localhost", "127.0.0.1", 80, False),
    ],
)
def test_no_proxy_has_names_and_addresses(
    no_proxy: str, host: str, port: int, exempt: bool
) -> None:
    assert is_exempt(no_proxy, host, port) is exempt


# The environment.


async def found(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], uri: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return str(await find_proxy(parse_uri(uri)))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("environment", "ws", "wss"),
    [
        ("", "None", "None"),
        ("wss ws https http socks all", "ws", "wss"),
        ("https http socks all", "https", "https"),
        ("http socks all", "http", "socks"),
        ("socks all", "socks", "socks"),
        ("all", "all", "all"),
        ("http", "http", "None"),
        ("ws", "ws", "None"),
        ("wss", "None", "wss"),
        ("ftp apt", "None", "None"),
    ],
)
async def test_first_variable_that_is_set_counts(
    monkeypatch: pytest.MonkeyPatch, environment: str, ws: str, wss: str
) -> None:
    settings = {f"{name}_proxy": f"https://{name}" for name in environment.split()}
    for uri, name in (("ws://server/", ws), ("wss://server/", wss)):
        expected = name if name == "None" else f"https://{name}:443"
        assert await found(monkeypatch, settings, uri) == expected


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({"HTTPS_PROXY": "http://a:81"}, "http://a:81"),
        ({"HTTPS_PROXY": "http://a:81", "https_proxy": "http://b:81"}, "http://b:81"),
        ({"HTTPS_PROXY": "http://a:81", "https_proxy": ""}, "None"),
        ({"https_proxy": "a:81"}, "http://a:81"),
        ({"https_proxy": "u:secret@a:81/"}, "http://a:81"),
        ({"https_proxy": "socks5h://a"}, "socks5h://a:1080"),
        ({"socks_proxy": "a:81"}, "socks5h://a:81"),
        ({"socks_proxy": "http://a:81"}, "socks5h://a:81"),
        ({"socks_proxy": "socks4://a:81"}, "socks4://a:81"),
        ({"https_proxy": "http://a", "no_proxy": "server"}, "None"),
        ({"https_proxy": "http://a", "NO_PROXY": "server:443"}, "None"),
        ({"https_proxy": "http://a", "no_proxy": "server:80"}, "http://a:80"),
        ({"https_proxy": "what|ever", "no_proxy": "*"}, "None"),
        ({"HTTPS_PROXY": "http://a", "REQUEST_METHOD": "GET"}, "http://a:80"),
    ],
)
async def test_environment_is_read_as_by_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str
) -> None:
    assert await found(monkeypatch, environment, "wss://server/") == proxy


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no case in the names")
async def test_proxy_field_of_a_cgi_request_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"}
    assert await found(monkeypatch, environment, "ws://server/") == "None"


@pytest.mark.anyio
async def test_bad_variable_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://alice:secret@proxy:99999")
    with pytest.raises(anyws.ProxyError) as caught:
        async with anyws.connect("wss://server/"):
            raise AssertionError
    assert str(caught.value) == (
        "https_proxy of the environment: 'http://***@proxy:99999' is not the URL of a proxy:"
        " the port is not a number in 1..65535"
    )
    assert caught.value.__cause__ is None


@pytest.mark.anyio
@pytest.mark.parametrize("bypass", [False, True])
async def test_settings_of_the_system_count_when_there_are_no_variables(
    monkeypatch: pytest.MonkeyPatch, bypass: bool
) -> None:
    asked = []

    def proxy_bypass(host: str) -> bool:
        asked.append((host, threading.current_thread() is threading.main_thread()))
        return bypass

    monkeypatch.setattr(urllib.request, "getproxies_environment", dict)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"socks": "http://a:81"})
    monkeypatch.setattr(urllib.request, "proxy_bypass", proxy_bypass)
    proxy = await find_proxy(parse_uri("ws://[::1]:80/"))
    assert str(proxy) == ("None" if bypass else "socks5h://a:81")
    assert asked == [("[::1]:80", False)]


@pytest.mark.anyio
async def test_waiting_for_the_system_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def proxy_bypass(host: str) -> bool:
        return released.wait(10)

    monkeypatch.setattr(urllib.request, "getproxies_environment", dict)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://a:81"})
    monkeypatch.setattr(urllib.request, "proxy_bypass", proxy_bypass)
    with pytest.raises(TimeoutError, match=r"after 0\.01 seconds \(open_timeout\)$"):
        async with anyws.connect("wss://server/", open_timeout=0.01):
            raise AssertionError
    released.set()


@pytest.mark.anyio
async def test_system_is_not_asked_about_bypassing_when_it_has_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(urllib.request, "getproxies_environment", dict)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"ftp": "http://a:81"})
    monkeypatch.setattr(urllib.request, "proxy_bypass", None)
    assert await find_proxy(parse_uri("ws://server/")) is None


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["APT_PROXY", "ftp_proxy"])
async def test_variables_for_other_protocols_are_no_proxies(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert await found(monkeypatch, {name: "http://a:81"}, "wss://server/") == "None"


def test_tests_are_immune_to_a_developers_proxy() -> None:
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]


# The arguments.


@pytest.mark.parametrize("value", [False, 1, b"http://proxy", ("http", "proxy")], ids=repr)
def test_proxy_of_a_wrong_type_is_a_typeerror(value: Any) -> None:
    with pytest.raises(TypeError, match="proxy must be a str, True or None, not "):
        anyws.connect("ws://server/", proxy=value)


def test_bad_proxy_is_a_valueerror_of_the_call() -> None:
    with pytest.raises(ValueError, match=r"^'http://\*\*\*@:1' is not the URL of a proxy"):
        anyws.connect("ws://server/", proxy="http://alice:secret@:1")
    with pytest.raises(ValueError, match="is not the URL of a proxy"):
        anyws.reconnect("ws://server/", proxy="proxy:1")


@pytest.mark.parametrize("proxy", ["http://u:secret@proxy", "socks5://u:secret@proxy", None])
def test_proxy_ssl_without_an_https_proxy_is_a_valueerror(proxy: str | None) -> None:
    text = f"^proxy_ssl is given, but {'proxy is None' if proxy is None else proxy[:4]}"
    with pytest.raises(ValueError, match=text) as caught:
        anyws.connect("ws://server/", proxy=proxy, proxy_ssl=client_context())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["https://proxy", True])
def test_proxy_ssl_is_taken_where_there_may_be_an_https_proxy(proxy: Any) -> None:
    anyws.connect("ws://server/", proxy=proxy, proxy_ssl=client_context())


def test_proxy_ssl_of_a_wrong_type_is_a_typeerror() -> None:
    wrong: Any = True
    with pytest.raises(TypeError, match=r"proxy_ssl must be a ssl\.SSLContext or None, not bool"):
        anyws.connect("ws://server/", proxy_ssl=wrong)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["proxy", "proxy_ssl"])
async def test_proxy_is_refused_where_none_leads_to(name: str) -> None:
    arguments: dict[str, Any] = {name: "http://proxy" if name == "proxy" else client_context()}
    near, far = memory_stream_pair()
    text = f"^{name} is given, but no proxy leads to a stream or a UNIX socket"
    with pytest.raises(ValueError, match=text):
        anyws.connect("ws://server/", stream=near, **arguments)
    with pytest.raises(ValueError, match=text):
        anyws.connect("ws+unix:///run/x.sock", **arguments)
    with pytest.raises(TypeError, match=rf"unix_connect\(\) has no use for the argument '{name}'"):
        anyws.unix_connect("/run/x.sock", **arguments)
    with pytest.raises(TypeError, match=rf"wrap_client\(\) has no use for the argument '{name}'"):
        anyws.wrap_client(near, **arguments)
    await near.aclose()
    await far.aclose()


@pytest.mark.anyio
async def test_variables_do_not_count_where_no_proxy_leads_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    near, far = memory_stream_pair()
    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            async with anyws.wrap_server(far) as ws:
                await ws.send("hello")

        tasks.start_soon(serve)
        async with anyws.connect("ws://server/", stream=near) as ws:
            assert await ws.recv() == "hello"


def test_missing_python_socks_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uninstall_python_socks(monkeypatch)
    text = r"^proxy socks5h://proxy:1080 needs python-socks: pip install 'anyws\[socks\]'$"
    with pytest.raises(ImportError, match=text):
        anyws.connect("ws://server/", proxy="socks5h://u:secret@proxy")


@pytest.mark.anyio
async def test_missing_python_socks_is_told_on_entering_when_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uninstall_python_socks(monkeypatch)
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ImportError, match="pip install"):
        async with anyws.connect("ws://server/"):
            raise AssertionError


def test_python_socks_is_imported_only_when_used() -> None:
    code = "import anyws, sys; anyws.connect('ws://h'); sys.exit('python_socks' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
