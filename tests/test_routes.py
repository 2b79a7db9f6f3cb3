"""Routes as an application lists them: their paths, and the mistakes that one can make."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

import anyws

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent


async def handler(ws: anyws.Connection) -> None:
    raise NotImplementedError


# Paths of endpoints


@pytest.mark.parametrize(
    ("endpoint", "values", "url"),
    [
        ("room", {"name": "lobby"}, "/rooms/lobby"),
        ("room", {"name": "caf\xe9 #1"}, "/rooms/caf%C3%A9%20%231"),
        ("room", {"name": "a", "since": 5, "to": None}, "/rooms/a?since=5"),
        ("log", {}, "/log/"),
        ("log", {"page": 1}, "/log/"),
        ("log", {"page": 2}, "/log/2"),
        ("tenant", {"tenant": "acme"}, "//acme.example/"),
        ("both", {}, "/both"),
        ("both", {"tenant": "acme", "x": 1}, "/both?tenant=acme&x=1"),
        ("endpoint", {"endpoint": "e", "self": "s"}, "/e/s"),
    ],
)
def test_url_for_builds_the_path(endpoint: str, values: dict[str, object], url: str) -> None:
    router = anyws.Router()
    router.route("/log/", endpoint="log", defaults={"page": 1})(handler)
    router.route("/log/<int:page>", endpoint="log")(handler)
    router.route("/rooms/<name>", endpoint="room")(handler)
    router.route("/", endpoint="tenant", host="<tenant>.example")(handler)
    router.route("/both", endpoint="both", host="<tenant>.example")(handler)
    router.route("/both", endpoint="both")(handler)
    router.route("/<endpoint>/<self>", endpoint="endpoint")(handler)
    assert router.url_for(endpoint, **values) == url


def test_url_for_joins_with_the_uri_of_the_server() -> None:
    router = anyws.Router()
    router.route("/a", endpoint="plain")(handler)
    router.route("/a", endpoint="hosted", host="b.example")(handler)
    assert urljoin("wss://localhost:8765/", router.url_for("plain")) == "wss://localhost:8765/a"
    assert urljoin("wss://localhost:8765/", router.url_for("hosted")) == "wss://b.example/a"


@pytest.mark.parametrize(
    ("endpoint", "values"), [("unknown", {}), ("room", {}), ("tenant", {}), ("tenant", {"x": "y"})]
)
def test_url_for_is_a_lookuperror_when_no_route_fits(
    endpoint: str, values: dict[str, object]
) -> None:
    router = anyws.Router()
    router.route("/rooms/<name>", endpoint="room")(handler)
    router.route("/", endpoint="tenant", host="<tenant>.example")(handler)
    with pytest.raises(LookupError, match=f"endpoint '{endpoint}'"):
        router.url_for(endpoint, **values)


def test_url_for_is_a_valueerror_when_a_value_cannot_be() -> None:
    router = anyws.Router()
    router.route("/<int:n>", endpoint="n")(handler)
    with pytest.raises(ValueError, match="invalid literal for int"):
        router.url_for("n", n="seven")


@pytest.mark.parametrize(
    ("endpoint", "values"),
    [
        ("room", {"name": ""}),
        ("room", {"name": "a/b"}),
        ("room", {"name": "../log"}),
        ("room", {"name": ".."}),
        ("room", {"name": "."}),
        ("room", {"name": "new"}),
        ("number", {"n": -1}),
        ("file", {"name": "/../n/1"}),
        ("tenant", {"tenant": "evil.example/"}),
        ("tenant", {"tenant": "evil.example:80"}),
        ("tenant", {"tenant": "user@"}),
    ],
)
def test_url_for_is_a_valueerror_when_the_path_would_lead_elsewhere(
    endpoint: str, values: dict[str, object]
) -> None:
    router = anyws.Router()
    router.route("/rooms/<name>", endpoint="room")(handler)
    router.route("/rooms/new", endpoint="new")(handler)
    router.route("/n/<int:n>", endpoint="number")(handler)
    router.route("/<path:name>", endpoint="file")(handler)
    router.route("/", endpoint="tenant", host="<tenant>.example")(handler)
    with pytest.raises(ValueError, match=f"does not lead to the endpoint '{endpoint}'"):
        router.url_for(endpoint, **values)


def test_each_of_the_routes_with_one_rule_has_its_url() -> None:
    router = anyws.Router()
    for endpoint, subprotocols in [("one", ["v1"]), ("two", ["v2", "v1"]), ("any", [])]:
        router.route("/<int:n>", endpoint=endpoint, subprotocols=subprotocols)(handler)
    assert [router.url_for(it, n=5) for it in ("one", "two", "any")] == ["/5"] * 3


# Mistakes


def add(router: anyws.Router, *arguments: Any, **options: Any) -> None:
    router.route(*arguments, **options)(handler)


@pytest.mark.parametrize(
    ("mistake", "error", "problem"),
    [
        (
            lambda r: r.route(handler),
            TypeError,
            "rule must be a str, not function: use @",
        ),
        (lambda r: r.route("/", host=b"a"), TypeError, "host must be a str, not bytes"),
        (lambda r: r.route("/", subprotocols="a"), TypeError, "subprotocols must be a sequence"),
        (lambda r: r.route("/", subprotocols=["a b"]), ValueError, "is not a token"),
        (lambda r: r.route("/")("tell"), TypeError, "handler must be a function, not str"),
        (
            lambda r: r.route("/")(functools.partial(handler)),
            TypeError,
            "handler of .* has no name",
        ),
        (lambda r: add(r, "rooms"), ValueError, "must start with a slash"),
        (lambda r: add(r, "/<rooms"), ValueError, "malformed url rule"),
        (lambda r: add(r, "/<date:day>"), LookupError, "'date' does not exist"),
        (lambda r: r.route("/new", endpoint="used")(print), ValueError, "that of another handler"),
        (lambda r: add(r, "/used"), ValueError, "'/used' .* 'used', which leaves no subprotocol"),
        (lambda r: add(r, "/used", subprotocols=["v1"]), ValueError, "which leaves no subprotocol"),
        (lambda r: add(r, "/v", subprotocols=["v2"]), ValueError, "which leaves no subprotocol"),
        (lambda r: add(r, "/v", defaults={"x": 1}), ValueError, "has other defaults or strict"),
        (lambda r: add(r, "/v", strict_slashes=False), ValueError, "has other defaults or strict"),
    ],
)
def test_wrong_route_is_an_error_of_the_call_and_changes_nothing(
    mistake: Callable[[anyws.Router], object], error: type[Exception], problem: str
) -> None:
    router = anyws.Router()
    router.route("/used", endpoint="used")(handler)
    router.route("/v", endpoint="v", subprotocols=["v1", "v2"])(handler)
    with pytest.raises(error, match=problem):
        mistake(router)
    with pytest.raises(LookupError):
        router.url_for("handler")


def test_process_request_that_cannot_be_called_is_a_typeerror_of_the_call() -> None:
    with pytest.raises(TypeError, match="process_request must be a function, not list"):
        anyws.Router(process_request=[])  # type: ignore[arg-type]  # that is it


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("chat.example:8765", "host 'chat.example:8765' has a port; ports are not compared"),
        ("[::1]:80", "has a port"),
        ("<tenant>.example:80", "has a port"),
        ("b\xfccher.example", "is not a name in ASCII"),
        ("", "is not a name in ASCII"),
    ],
)
def test_host_that_could_never_match_is_a_valueerror_of_the_call(host: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        anyws.Router().route("/", host=host)


# Without werkzeug


def test_router_says_what_to_install_when_werkzeug_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "anyws._rules", raising=False)
    monkeypatch.delattr(anyws, "_rules", raising=False)
    for name in ("werkzeug", "werkzeug.exceptions", "werkzeug.routing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"^Router needs werkzeug: pip install 'anyws\[router\]'"):
        anyws.Router()


def test_werkzeug_is_not_imported_before_a_router_is_made() -> None:
    program = "import sys, anyws, anyws.testing; sys.exit('werkzeug' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
