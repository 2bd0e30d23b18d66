"""A bare Python becomes the project's environment, once, whatever happens on the way.

The set-up runs for real, with venv, pip and uv, in a small checkout whose locks name wheels made here.
"""

import ast
import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import bootstrap

REPO = Path(bootstrap.__file__).parent
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
RUN = """
import bootstrap
import sys
bootstrap.enter(groups=sys.argv[1:])
import runtime_part
print(sys.prefix, *sys.argv[1:])
if "test" in sys.argv:
    import test_part
"""


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^[\w.\[\]-]+==\S+", (REPO / lock).read_text(), re.MULTILINE))


def write_wheel(folder: Path, name: str, files: Mapping[str, bytes] | None = None) -> Path:
    """Make an installable wheel of one empty module, or of the programs ``files``."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    contents = {
        **({f"{name}.py": b""} if files is None else files),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={base64url_sha256(content)},{len(content)}" for path, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,\n"]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in contents.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (stat.S_IFREG | (0o755 if "/scripts/" in path else 0o644)) << 16
            archive.writestr(entry, content)
    return wheel


def base64url_sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def hash_of(wheel: Path) -> str:
    return f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def pin(wheel: Path) -> str:
    """Return a line for a lock that says where the wheel lies, so that nobody has to look for it."""
    return f"{wheel.name.partition('-')[0]} @ {wheel.as_uri()} {hash_of(wheel)}\n"


class Checkout:
    """A small project with the real bootstrap.py, started by the Python below our environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.repo = folder / "a checkout"
        for made in (self.home, self.bin, self.repo):
            made.mkdir()
        shutil.copy(REPO / "bootstrap.py", self.repo)
        (self.repo / "run.py").write_text(RUN)
        self.runtime = write_wheel(folder, "runtime_part")
        (self.repo / "requirements.lock").write_text(pin(self.runtime))
        (self.repo / "requirements-test.lock").write_text(pin(self.runtime) + pin(write_wheel(folder, "test_part")))

    def installer_of(self, package: str) -> str:
        """Return who installed a package, as it is recorded beside it."""
        return (
            next(self.repo.glob(f".venv/lib/python*/site-packages/{package}-*.dist-info/INSTALLER")).read_text().strip()
        )

    def start(self, *groups: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BASE_PYTHON, "run.py", *groups],
            cwd=self.repo,
            env={"PATH": f"{self.bin}:{os.defpath}", "HOME": str(self.home), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *groups: str, **variables: str) -> tuple[int, str, str]:
        return finish(self.start(*groups, **variables))


@pytest.fixture
def uv_wheel(checkout: Checkout) -> Path:
    """A wheel of the real uv, which the checkout's lock names."""
    program = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.prefix) / "bin"))
    if program is None:
        pytest.skip("no uv on this machine: its set-up went by pip alone")
    wheel = write_wheel(checkout.folder, "uv", {"uv-1.0.data/scripts/uv": Path(program).read_bytes()})
    (checkout.repo / "requirements-uv.lock").write_text(pin(wheel))
    return wheel


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_bare_python_sets_itself_up_once_and_adds_the_test_group_later(checkout: Checkout) -> None:
    # A PYTHONPATH from elsewhere must not lead imports away from what the lock pins.
    stray = checkout.folder / "stray"
    stray.mkdir()
    (stray / "runtime_part.py").write_text("raise SystemExit('imported from PYTHONPATH')")

    # Two starts at the same moment: one sets up, the other waits for it and uses the result.
    starts = [checkout.start(PYTHONPATH=str(stray)) for _ in range(2)]
    ended = [finish(process) for process in starts]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert sum("(once)" in err for _, _, err in ended) == 1
    assert all(out.strip() == str(checkout.repo / ".venv") for _, out, _ in ended)

    assert checkout.run()[::2] == (0, ""), "a set-up that is done says nothing"

    code, out, err = checkout.run("test")
    assert (code, out.strip()) == (0, f"{checkout.repo / '.venv'} test"), err
    assert "updating" in err
    assert checkout.run("test")[2] == ""
    assert checkout.run()[2] == "", "the test group contains the runtime"


@pytest.mark.usefixtures("uv_wheel")
def test_pip_fetches_uv_alone_and_uv_the_rest(checkout: Checkout) -> None:
    code, _, err = checkout.run()
    assert code == 0, err
    assert checkout.installer_of("uv") == "pip"
    assert checkout.installer_of("runtime_part") == "uv"
    # The one that is there already is used again.
    (checkout.repo / "requirements-uv.lock").unlink()
    code, _, err = checkout.run("test")
    assert code == 0, err
    assert checkout.installer_of("test_part") == "uv"


@pytest.mark.usefixtures("uv_wheel")
def test_uv_goes_the_way_to_the_packages_that_pip_was_told(checkout: Checkout) -> None:
    # The lock does not say where the package lies; an index that only pip knows of does.
    (checkout.repo / "requirements.lock").write_text(f"runtime_part==1.0 {hash_of(checkout.runtime)}\n")
    shelf = checkout.folder / "index" / "runtime-part"
    shelf.mkdir(parents=True)
    shutil.copy(checkout.runtime, shelf)
    (shelf / "index.html").write_text(f'<a href="{checkout.runtime.name}">{checkout.runtime.name}</a>')
    configuration = checkout.home / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f"[global]\nindex-url = {shelf.parent.as_uri()}\n")
    code, _, err = checkout.run()
    assert code == 0, err
    assert checkout.installer_of("runtime_part") == "uv"


def test_what_pip_was_told_last_and_several_values_reach_uv_as_it_reads_them() -> None:
    listed = """:env:.index-url='https://of-the-environment/?a=b'
global.cert='/etc/ssl/ours.pem'
global.find-links='\\n/wheels\\n/more wheels'
global.index-url='https://global'
global.timeout='5'
install.extra-index-url='https://one https://two'
install.index-url='https://of-install'
"""
    assert bootstrap.variables_for_uv(listed) == {
        "UV_DEFAULT_INDEX": "https://of-the-environment/?a=b",
        "UV_INDEX": "https://one https://two",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more,wheels",
        "SSL_CERT_FILE": "/etc/ssl/ours.pem",
    }
    assert bootstrap.variables_for_uv("") == {}


def test_an_installer_that_fails_shows_its_log_and_spoils_nothing(checkout: Checkout) -> None:
    # A uv that fails is no reason to give up, and nothing to speak of when pip succeeds.
    uv = checkout.bin / "uv"
    uv.write_text("#!/bin/sh\necho uv has failed\nexit 3\n")
    uv.chmod(0o755)
    code, _, err = checkout.run()
    assert code == 0, err
    assert "uv has failed" not in err

    good = (checkout.repo / "requirements-test.lock").read_text()
    (checkout.repo / "requirements-test.lock").write_text(re.sub(r"sha256:\w{8}", "sha256:00000000", good))
    code, _, err = checkout.run("test")
    assert code == 1
    assert "uv has failed" in err
    assert "HASH" in err.upper()
    assert checkout.run()[::2] == (0, ""), "what was installed before still runs"

    (checkout.repo / "requirements-test.lock").write_text(good)
    assert checkout.run("test")[0] == 0


def test_an_environment_that_was_never_finished_is_built_again(checkout: Checkout) -> None:
    (checkout.repo / ".venv" / "bin").mkdir(parents=True)
    (checkout.repo / ".venv" / "bin" / "python").write_text("half a file")
    code, _, err = checkout.run()
    assert code == 0, err
    assert "setting up" in err


@pytest.fixture
def environment(tmp_path: Path) -> bootstrap.Environment:
    """An environment stamped with the runtime lock, whose interpreter is a link as in a real one."""
    (tmp_path / "requirements.lock").write_text("one")
    (tmp_path / "requirements-test.lock").write_text("one two")
    made = bootstrap.Environment(tmp_path)
    made.python.parent.mkdir(parents=True)
    made.python.symlink_to(sys.executable)
    made.write_stamp({"requirements.lock": made.digest("requirements.lock")})
    return made


def test_a_changed_lock_is_noticed(environment: bootstrap.Environment) -> None:
    assert environment.satisfies(["requirements.lock"])
    assert not environment.satisfies(["requirements-test.lock"])
    (environment.repo / "requirements.lock").write_text("another")
    assert not environment.satisfies(["requirements.lock"])


def test_an_upgraded_or_removed_system_python_is_noticed(environment: bootstrap.Environment, tmp_path: Path) -> None:
    newer = tmp_path / "python3.99"
    newer.write_text("")
    environment.python.unlink()
    environment.python.symlink_to(newer)
    assert not environment.satisfies(["requirements.lock"])
    newer.unlink()
    assert not environment.satisfies(["requirements.lock"])


@pytest.mark.parametrize("content", ["", "[]", '{"locks": {}}', '{"python": "x"}', "\x00\xff"])
def test_a_damaged_stamp_counts_as_none(environment: bootstrap.Environment, content: str) -> None:
    environment.stamp.write_text(content)
    assert environment.read_stamp() is None
    assert not environment.satisfies(["requirements.lock"])


def test_a_lock_that_does_not_exist_is_named(environment: bootstrap.Environment) -> None:
    with pytest.raises(bootstrap.SetupError, match=r"requirements-nothing\.lock is missing") as caught:
        environment.satisfies([bootstrap.lock_name("nothing")])
    assert caught.value.exit_code == 2


def test_every_group_contains_the_runtime_and_no_lock_names_an_address() -> None:
    for lock in REPO.glob("requirements*.lock"):
        # What we are compared with lives in an environment of its own; and uv comes before all others.
        alone = lock.name in ("requirements-bench.lock", "requirements-uv.lock")
        assert alone or pins("requirements.lock") <= pins(lock.name)
        assert "://" not in lock.read_text()


def test_the_peers_of_the_benchmarks_get_an_environment_of_their_own(checkout: Checkout) -> None:
    (checkout.repo / "requirements-bench.lock").write_text(pin(write_wheel(checkout.folder, "peer_part")))
    (checkout.repo / "run.py").write_text("import bootstrap; print(bootstrap.ensure_peers())")
    code, out, err = checkout.run()
    assert code == 0, err
    python = checkout.repo / ".venv-bench" / "bin" / "python"
    assert out.strip() == str(python)
    subprocess.run([python, "-c", "import peer_part"], check=True)
    assert checkout.run()[::2] == (0, ""), "a set-up that is done says nothing"
    assert not (checkout.repo / ".venv").exists()


def test_an_old_python_gets_one_sentence_instead_of_a_syntax_error() -> None:
    source = (REPO / "bootstrap.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    pretend = "import sys; sys.version_info = (3, 9, 1); import bootstrap"
    done = subprocess.run([BASE_PYTHON, "-c", pretend], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"Pitlane needs Python 3\.11 or newer; .* is 3\.9\.\n", done.stderr)
