"""Puts the process inside the project's own environment, setting that up when it is missing.

``run.py`` calls ``enter()`` before it imports anything else. Standard library only, and nothing slow at import time: a
start whose set-up is already done hashes two small files, compares them with a stamp and replaces the process.

The environment is ``.venv`` beside this file; what belongs in it is a hashed lock file per group of packages:
``requirements.lock`` to run, ``requirements-<group>.lock`` for more. Each group's lock contains the runtime's, so an
installed group satisfies the runtime too, and nothing is ever taken out again. pip, whichever the machine has, fetches
one package alone, uv, pinned in ``requirements-uv.lock``; uv installs the rest, in a fraction of pip's time.

Only what the benchmarks compare us with lives elsewhere, in ``.venv-bench``: some of it needs an older Redis client than
ours. ``ensure_peers()`` sets that up.

``install_redis()`` brings the distribution's Redis server where none is bundled; ``ensure_browser()`` and
``ensure_postgres()`` look for what only the tests need, and install it where they may.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python parses this far, and deserves a sentence
    sys.stderr.write("Pitlane needs Python 3.11 or newer; %s is %d.%d.\n" % (sys.executable, *sys.version_info[:2]))  # noqa: UP031
    sys.exit(2)

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

# What type checkers take for true; asking `typing` would cost each start its import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import TypedDict

    class Stamp(TypedDict):
        python: str
        locks: dict[str, str]
        unfinished: bool


REPO = Path(__file__).resolve().parent
RUNTIME_LOCK = "requirements.lock"
UV_LOCK = "requirements-uv.lock"
APT_TIMEOUT_S = 900
BROWSER_DOWNLOAD_TIMEOUT_S = 300
LOG_TAIL_LINES = 25

# Survives the exec, to tell "entered, but Python does not see the environment" from "not entered yet".
_ENTERED = "_PITLANE_ENTERED"
# Each of these would lead Python or pip away from the environment that is being set up.
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
_MISLEADING_PIP = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_REQUIREMENT", "PIP_CONSTRAINT")
# pip's options that say how the packages are reached: the variable that tells uv, and what separates several values there.
_PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "proxy": ("ALL_PROXY", ""),
}


class SetupError(Exception):
    """The environment could not be set up; the message is for the user, and trying again is safe."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def enter(groups: Sequence[str] = ()) -> None:
    """Return once this process runs in the project's environment with every lock that ``groups`` need installed.

    When it does not yet, set up what is missing and replace the process by the same command line inside (``execv``).
    ``groups`` names extra locks: ``("test",)`` means ``requirements-test.lock``. Safe to interrupt and to run at the
    same time as another start. Exits 1 when packages cannot be installed, 2 when the machine lacks what it takes.
    """
    if isinstance(groups, str):
        groups = (groups,)
    environment = Environment(REPO)
    locks = [lock_name(group) for group in groups] or [RUNTIME_LOCK]
    try:
        ready = environment.satisfies(locks)
        if not ready:
            environment.set_up(locks)
        # After a set-up this interpreter may have been replaced under us, so even inside a new one takes over.
        if ready and environment.is_current():
            os.environ.pop(_ENTERED, None)
            return
        if os.environ.get(_ENTERED) == str(os.getpid()):
            raise SetupError(f"{environment.python} does not use its own environment; remove {environment.path}.")
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; the next start sets up what is missing.\n")
        sys.exit(130)
    for name in _MISLEADING:
        os.environ.pop(name, None)
    os.environ[_ENTERED] = str(os.getpid())
    os.execv(environment.python, [str(environment.python), *sys.orig_argv[1:]])


def lock_name(group: str) -> str:
    """Return the lock file's name for a group of packages."""
    return f"requirements-{group}.lock"


class Environment:
    """A virtual environment of one checkout, and the stamp that says which locks it holds.

    The stamp is written last, so an environment without one was never finished: it is thrown away and built again.
    While more is added to a finished one its stamp says ``unfinished``: good for what it held, but not to build on.
    """

    def __init__(self, repo: Path, folder: str = ".venv", contained: Sequence[str] = (RUNTIME_LOCK,)) -> None:
        """``contained`` names the locks that each lock of this environment contains."""
        self.repo = repo
        self.contained = contained
        self.path = repo / folder
        self.python = self.path / "bin" / "python"
        self.stamp = self.path / "pitlane-stamp.json"

    def satisfies(self, locks: Sequence[str]) -> bool:
        """Say whether every lock, as it reads now, is installed for a Python that is still there."""
        stamp = self.read_stamp()
        if stamp is None or not self.is_intact(stamp):
            return False
        return all(stamp["locks"].get(lock) == self.digest(lock) for lock in locks)

    def is_intact(self, stamp: "Stamp") -> bool:
        """Say whether the environment was finished and its interpreter has not been replaced or removed since."""
        # The link's target, not its version: asking for the version would cost a process at every start, and an
        # upgraded system Python (whose packages would lie in another folder) has another target.
        return stamp["python"] == os.path.realpath(self.python) and self.python.exists()

    def is_current(self) -> bool:
        """Say whether this process runs inside the environment."""
        return os.path.realpath(sys.prefix) == os.path.realpath(self.path)

    def read_stamp(self) -> "Stamp | None":
        """Return the stamp, or ``None`` when there is none that can be read."""
        try:
            stamp = json.loads(self.stamp.read_text())
            return {"python": stamp["python"], "locks": dict(stamp["locks"]), "unfinished": bool(stamp["unfinished"])}
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def digest(self, lock: str) -> str:
        """Return the lock's SHA-256 in hex; raises ``SetupError`` when there is no such lock."""
        try:
            return hashlib.sha256((self.repo / lock).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise SetupError(f"{lock} is missing; this checkout is not complete.", exit_code=2) from None

    def write_stamp(self, locks: Mapping[str, str], unfinished: bool = False) -> None:
        """Record the locks (name: digest) as installed; replaces the file in one step."""
        stamp = {"python": os.path.realpath(self.python), "locks": dict(locks), "unfinished": unfinished}
        scratch = self.stamp.with_suffix(".new")
        scratch.write_text(json.dumps(stamp, indent=1) + "\n")
        scratch.replace(self.stamp)

    def set_up(self, locks: Sequence[str]) -> None:
        """Build the environment, or add what it lacks; one process at a time, the others wait for it."""
        with _OneAtATime(self.repo) as holder:
            if self.satisfies(locks):
                return
            stamp = self.read_stamp()
            keep = stamp is not None and self.is_intact(stamp) and not stamp["unfinished"]
            # What a finished environment holds and the checkout still asks for stays as it is: all locks come from one
            # resolution, so adding one group changes nothing of another, and a failure half-way costs nothing.
            held = {}
            if stamp is not None and keep:
                held = {lock: was for lock, was in stamp["locks"].items() if self._still_reads(lock, was)}
            # Read before the installation: a lock that changes meanwhile must not count as installed.
            wanted = {lock: self.digest(lock) for lock in (*self.contained, *locks)}
            if held:
                self.write_stamp(held, unfinished=True)
            else:
                self.stamp.unlink(missing_ok=True)
            try:
                _install(self, locks, keep=keep, run=_Runner(self.repo, holder))
            except SetupError:
                if held:
                    self.write_stamp(held)
                raise
            self.write_stamp({**held, **wanted})
            _say("environment ready")

    def _still_reads(self, lock: str, digest: str) -> bool:
        return (self.repo / lock).exists() and self.digest(lock) == digest


def _install(environment: Environment, locks: Sequence[str], keep: bool, run: "_Runner") -> None:
    """Fill the environment from the locks by the first way that works; raises ``SetupError`` with the logs' tails."""
    from shutil import rmtree

    _say("updating the environment…" if keep else "setting up the environment (once)…")
    requirements = [argument for lock in locks for argument in ("-r", lock)]
    # The interpreter below any virtual environment: one that lies in .venv itself is about to be replaced.
    base = getattr(sys, "_base_executable", None) or sys.executable
    # uv first, as it takes a tenth of the time. pip goes on where uv has no build for the machine, or does not find its
    # way to the packages.
    failures = []
    for fill in (_with_uv, _with_pip):
        try:
            if not keep and environment.path.exists():
                rmtree(environment.path)
            failure = None
            if not environment.python.exists():
                failure = run([base, "-m", "venv", "--without-pip", environment.path])
            failure = failure or fill(environment, requirements, base, run)
        except OSError as error:
            raise SetupError(f"The environment could not be set up: {error}") from error
        if failure is None:
            return
        failures.append(failure)
    raise SetupError(
        "\n\n".join([*failures, "The environment could not be set up; the installer's last words are above."])
    )


def _with_uv(environment: Environment, requirements: list[str], base: str, run: "_Runner") -> str | None:
    """Fill by the machine's uv, else by one that pip fetches; return ``None``, or the tail of the log of what failed."""
    from shutil import which

    own = environment.path / "bin" / "uv"
    # The benchmarks' environment is filled from inside the other one, which may hold a uv.
    beside = Path(sys.prefix) / "bin" / "uv"
    uv = which("uv") or next((path for path in (own, beside) if path.exists()), None)
    pip = _find_pip(environment, base, run) if uv else _need_pip(environment, base, run)
    # Asked while pip fetches.
    asked = run.start([*pip, "config", "list"]) if pip else None
    fetch = ["install", "--quiet", "--no-input", "--no-compile", "--no-deps", "--only-binary=:all:", "--retries=1"]
    failure = run([*pip, *fetch, "--require-hashes", "-r", UV_LOCK]) if pip and uv is None else None
    listed = asked.communicate()[0] if asked else b""
    if failure:
        return failure
    way = variables_for_uv(listed.decode(errors="replace"))
    # Without a home to write to, uv has no place for its cache and would stop.
    cache = [] if os.access(_home(), os.W_OK) or "UV_CACHE_DIR" in os.environ else ["--no-cache"]
    compiling = ["--compile-bytecode"] if _never_compiles_later() else []
    # A lock names everything: with nothing to resolve, uv need not ask each package what else it wants.
    filling = [uv or own, "pip", "install", "--python", environment.python, "--quiet", "--no-deps", "--require-hashes"]
    return run([*filling, *cache, *compiling, *requirements], way)


def variables_for_uv(listed: str) -> dict[str, str]:
    """Return the variables that tell uv, which does not read pip's configuration, the way that pip goes.

    ``listed`` is what ``pip config list`` printed: lines like ``global.index-url='https://…'``.
    """
    from ast import literal_eval

    told: dict[tuple[str, str], str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if option in _PIP_TO_UV:
            told[section, option] = literal_eval(value)
    variables = {}
    # pip's own order: what a later one says replaces what an earlier one said.
    for section in ("global", "install", ":env:"):
        for option, (variable, separator) in _PIP_TO_UV.items():
            if (section, option) in told:
                value = told[section, option]
                variables[variable] = separator.join(value.split()) if separator else value
    if "UV_INDEX" in variables:
        # As pip does: the version that the lock names from wherever it lies. Its hash says that it is the right one.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


def _never_compiles_later() -> bool:
    """Tell whether Python was told not to keep what it compiles: then every single start would compile everything."""
    return sys.dont_write_bytecode


def _with_pip(environment: Environment, requirements: list[str], base: str, run: "_Runner") -> str | None:
    """Fill by pip; return ``None``, or the tail of its log when it failed."""
    # Modules are compiled as they are first imported: compiling all of them would take longer.
    compiling = [] if _never_compiles_later() else ["--no-compile"]
    pip = _need_pip(environment, base, run)
    return run([*pip, "install", "--quiet", *compiling, "--no-input", "--require-hashes", *requirements])


def _need_pip(environment: Environment, base: str, run: "_Runner") -> list[Path | str]:
    """Return the command of a pip that fills the environment; raises ``SetupError`` when there is none."""
    pip = _find_pip(environment, base, run)
    # Debian splits ensurepip and its pip off its Python, into a package of the same version.
    if pip is None and _apt_install("python{}.{}-venv".format(*sys.version_info[:2])):
        pip = _find_pip(environment, base, run)
    if pip is None:
        raise SetupError("Python's venv and pip are missing on this machine: apt install python3-venv", exit_code=2)
    return pip


def _find_pip(environment: Environment, base: str, run: "_Runner") -> list[Path | str] | None:
    """Return the command of a pip that fills the environment, which has none itself, or ``None``."""
    asked = run.start([base, "-c", "import pip; print(pip.__path__[0])"])
    said, _ = asked.communicate()
    # What `pip --python` runs in the other environment, itself being started for nothing else; from pip 22.2 on.
    runner = Path(os.fsdecode(said).strip()) / "__pip-runner__.py"
    if asked.returncode == 0 and runner.exists():
        return [environment.python, runner]
    # ensurepip would take 5 s to install its wheel, which runs as it is.
    wheel = _find_pip_wheel()
    return [environment.python, wheel / "pip"] if wheel else None


def _find_pip_wheel() -> Path | None:
    """Return the wheel from which ensurepip would install pip, or ``None``."""
    import sysconfig
    from importlib.util import find_spec

    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR")]
    ensurepip = find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        folders.append(Path(ensurepip.origin).parent / "_bundled")
    return next((wheel for folder in folders if folder for wheel in Path(folder).glob("pip-*.whl")), None)


class _Runner:
    """Runs installers with their output kept back, in an environment that leads them nowhere else."""

    def __init__(self, repo: Path, holder: int) -> None:
        self.repo = repo
        # Inherited by each installer, so that the lock outlives us for as long as one of them still writes.
        self.holder = holder
        self.variables = {
            name: value for name, value in os.environ.items() if name not in _MISLEADING and name not in _MISLEADING_PIP
        }
        # "0" also overrules a `user = true` in pip's configuration, which fails inside a virtual environment.
        self.variables.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_REQUIRE_VIRTUALENV="0")
        # Behind a proxy with a certificate of its own uv fails on those it brings along; the system's are right there.
        self.variables.setdefault("UV_SYSTEM_CERTS", "1")

    def __call__(self, command: Iterable[Path | str], also: Mapping[str, str] | None = None) -> str | None:
        """Return ``None`` when the command succeeds, else its name and the tail of its output.

        The variables in ``also`` are set for it unless the user has set them.
        """
        words = [str(word) for word in command]
        try:
            process = self.start(words, also)
        except OSError as error:
            return f"$ {' '.join(words)}  ({error})"
        shown, _ = process.communicate()
        if process.returncode == 0:
            return None
        tail = shown.decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"$ {' '.join(words)}  (exit {process.returncode})", *tail])

    def start(self, command: Iterable[Path | str], also: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start the command; all that it says is to be read by ``communicate``."""
        import subprocess

        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self.repo,
            env={**(also or {}), **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self.holder,),
        )


class _OneAtATime:
    """Holds the checkout's set-up lock, which the system releases when its last holder ends, however it ends."""

    def __init__(self, repo: Path) -> None:
        # This very file serves as the lock: a file of its own would lie in .venv, which a set-up removes, or show up
        # in `git status`.
        self.path = repo / Path(__file__).name

    def __enter__(self) -> int:
        import fcntl

        self.file = self.path.open("rb+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another start is setting up the environment; waiting for it…")
            fcntl.flock(self.file, fcntl.LOCK_EX)
        return self.file.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()


def _home() -> Path:
    return Path(os.environ.get("HOME", "/"))


def _say(message: str) -> None:
    sys.stderr.write(f"pitlane: {message}\n")
    sys.stderr.flush()


# What only the benchmarks need -------------------------------------------------------------------------------------


def ensure_peers() -> Path:
    """Return the Python with what the benchmarks compare us with, set up when it is missing.

    Raises ``SetupError`` when the packages cannot be installed; then only the comparison is missing.
    """
    environment = Environment(REPO, ".venv-bench", contained=())
    locks = [lock_name("bench")]
    if not environment.satisfies(locks):
        environment.set_up(locks)
    return environment.python


# What a few machines need ------------------------------------------------------------------------------------------


def install_redis() -> bool:
    """Put Debian's Redis server into this environment, without its service; say whether it is there.

    For machines that no bundled server is built for.
    """
    from shutil import which

    # The package redis-server holds little but a service, which would start at once and with the machine from then on.
    # The program itself comes with redis-tools, under the names of tools, and is a server when it is called by that name.
    if which("redis-check-rdb") is None and not _apt_install("redis-tools"):
        return False
    program = which("redis-check-rdb")
    if program is None:
        return False
    link = Path(sys.prefix) / "bin" / "redis-server"
    link.unlink(missing_ok=True)
    link.symlink_to(program)
    return True


# What only the tests need ------------------------------------------------------------------------------------------


def ensure_browser() -> str | None:
    """Return the path of a Chromium or Chrome that starts; install one where this machine allows it, else ``None``.

    As root on a Debian-like machine the distribution's is installed; elsewhere Playwright is asked to download its own.
    """
    found = find_browser()
    # With a font: without any, a page has no letters.
    if found is None and _apt_install("chromium", "fonts-liberation"):
        found = find_browser()
    if found is None and _playwright_install():
        found = find_browser()
    return found


def ensure_postgres() -> str | None:
    """Return the folder with PostgreSQL's server programs, installed as root on Debian, else ``None``."""
    found = find_postgres()
    if found is None and _apt_install("postgresql"):
        found = find_postgres()
    return found


def ensure_nginx() -> str | None:
    """Return the path of an nginx, fetched from Debian's packages where there is none, else ``None``.

    Its package is unpacked into this environment and not installed: that would start a server for the whole world, now and
    with the machine from then on.
    """
    found = find_nginx()
    if found is None:
        found = _fetch_nginx()
    return found


def find_nginx() -> str | None:
    """Return the path of an nginx on this machine or in this environment, or ``None``; installs nothing."""
    from shutil import which

    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", str(_NGINX / "usr/sbin")])
    found = which("nginx", path=places)
    return found if found and _starts(found, "-v") else None


_NGINX = Path(sys.prefix) / "nginx"


def _fetch_nginx() -> str | None:
    import tempfile
    from shutil import which

    if not which("apt-get") or not which("dpkg-deb"):
        return None
    _say("fetching nginx…")
    variables = dict(os.environ)
    if os.geteuid() == 0:
        _quietly(["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=120", "update"], variables, APT_TIMEOUT_S)
    with tempfile.TemporaryDirectory() as folder:
        # Which of them has the program depends on the distribution; the others of its packages are empty.
        for package in ("nginx", "nginx-light", "nginx-core"):
            download = ["apt-get", "--quiet", "-o", f"Dir::Cache::Archives={folder}", "download", package]
            if _quietly(download, variables, APT_TIMEOUT_S, folder):
                for file in Path(folder).glob(f"{package}_*.deb"):
                    _quietly(["dpkg-deb", "-x", str(file), str(_NGINX)], variables, APT_TIMEOUT_S)
            found = find_nginx()
            if found is not None:
                return found
    return None


def find_browser() -> str | None:
    """Return the path of a Chromium or Chrome that starts, or ``None``; installs nothing."""
    from shutil import which

    candidates = [which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")]
    candidates += ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"]
    candidates += [str(path) for path in _playwright_browsers()]
    return next((path for path in candidates if path and _starts(path)), None)


def find_postgres() -> str | None:
    """Return the folder with initdb, pg_ctl and postgres, on PATH or newest, or ``None``; installs nothing."""
    from shutil import which

    folders = []
    on_path = which("initdb")
    if on_path:
        # Through the link first: beside a link there need not be one to each of the programs.
        folders += [Path(on_path).resolve().parent, Path(on_path).parent]
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin"):
        folders += sorted(Path("/").glob(pattern), key=_version_in, reverse=True)
    programs = ("initdb", "pg_ctl", "postgres")
    return next((str(folder) for folder in folders if all((folder / name).exists() for name in programs)), None)


def _version_in(path: Path) -> list[int]:
    """Return the numbers in a path, so that 15 sorts after 9."""
    import re

    return [int(digits) for digits in re.findall(r"\d+", str(path))]


def _playwright_browsers() -> list[Path]:
    """Return the browsers that Playwright has downloaded, newest first."""
    chosen = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    roots = [Path(chosen)] if chosen else [_home() / ".cache/ms-playwright", _home() / "Library/Caches/ms-playwright"]
    patterns = ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*")
    found = [path for root in roots for pattern in patterns for path in root.glob(pattern)]
    return sorted(found, key=_version_in, reverse=True)


def _starts(path: str, option: str = "--version") -> bool:
    # Ubuntu's chromium-browser is a script that only tells to install a snap: being there is not enough.
    import subprocess

    asked = [path, option]
    try:
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _apt_install(*packages: str) -> bool:
    """Install Debian packages where that is possible without asking anybody; say whether it worked."""
    from shutil import which

    if os.geteuid() != 0 or not which("apt-get"):
        return False
    _say("installing {}…".format(", ".join(packages)))
    apt_get = ["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=120"]
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A machine whose lists cannot all be refreshed may still have the package.
    _quietly([*apt_get, "update"], variables, APT_TIMEOUT_S)
    return _quietly([*apt_get, "install", "--no-install-recommends", *packages], variables, APT_TIMEOUT_S)


def _playwright_install() -> bool:
    """Let Playwright download its Chromium, if Playwright is in this environment; say whether it worked."""
    from importlib.util import find_spec

    if find_spec("playwright") is None:
        return False
    _say("downloading a browser for the tests…")
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    return _quietly(command, dict(os.environ), BROWSER_DOWNLOAD_TIMEOUT_S)


def _quietly(command: list[str], variables: Mapping[str, str], timeout_s: float, folder: str | None = None) -> bool:
    """Run a command, in ``folder`` if one is named, with its output shown only when it fails; say whether it succeeded."""
    import subprocess

    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"{' '.join(command)}: {error}")
        return False
    if done.returncode != 0:
        tail = done.stdout.decode(errors="replace").splitlines()[-5:]
        _say(f"{' '.join(command)} failed:\n  " + "\n  ".join(tail))
    return done.returncode == 0
