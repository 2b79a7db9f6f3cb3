"""How logs name a connection: by its peer's address, and by the path that was asked for.

Owns the words; knows no connection.
"""


def describe_address(address: object) -> str:
    """Say who a peer is, or where a server listens."""
    if isinstance(address, str) and address:
        return address  # the path of a UNIX socket
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "a local peer"


def plain_path(path: str) -> str:
    """Give a path without its query, which may hold secrets."""
    return path.partition("?")[0]
