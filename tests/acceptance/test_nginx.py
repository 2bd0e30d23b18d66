"""The nginx configuration of docs/operations.md, as it stands there, in front of a real server."""

import datetime
import getpass
import ipaddress
import json
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import bootstrap
from tests.acceptance.servers import ROOT, Server, running_servers
from tests.parts import eventually
from tests.services import free_port

PAGE = ROOT / "docs" / "operations.md"
PATIENCE_S = 30.0
ATTEMPTS_MAX = 60
"""More than are allowed to one address."""
PASSWORD = "correct horse, and a battery"
BESIDE, UNLISTED = "127.0.0.2", "127.0.0.3"
"""Addresses that nginx may speak to the server from: a machine beside it, as far as the server can tell."""


@pytest.fixture(scope="module")
def nginx() -> str:
    found = bootstrap.find_nginx()
    if found is None:
        reason = "nginx is not on this machine; run.py test fetches it where Debian's packages are at hand"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


def certificate(folder: Path) -> None:
    """Leave a certificate for 127.0.0.1 that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), 1, now - datetime.timedelta(1), now + datetime.timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "pitlane.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    unencrypted = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
    (folder / "pitlane.key").write_bytes(private)


def configuration(folder: Path, server: Server, https_port: int, http_port: int, speaks_from: str | None) -> str:
    """Return the page's configuration with other places, and nothing else changed; ``speaks_from``: towards the server."""
    [text] = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    for old, new in (
        ("user www-data;", f"user {getpass.getuser()};"),
        ("worker_processes auto;", "worker_processes 1;"),
        ("worker_rlimit_nofile 65536;", ""),
        ("worker_connections 16384;", "worker_connections 256;"),
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/var/log/nginx/", f"{folder}/"),
        ("/etc/nginx/", f"{folder}/"),
        ("listen 80;", f"listen 127.0.0.1:{http_port};"),
        ("listen 443 ", f"listen 127.0.0.1:{https_port} "),
        ("127.0.0.1:8000", server.base_url.removeprefix("http://")),
        ("http {\n", "http {\n" + "".join(f"{place}_temp_path {folder}/{place};\n" for place in places)),
        ("proxy_http_version 1.1;", f"proxy_http_version 1.1; {f'proxy_bind {speaks_from};' if speaks_from else ''}"),
    ):
        assert old in text, f"the page no longer says {old}"
        text = text.replace(old, new)
    return text


@contextmanager
def in_front(
    nginx: str, folder: Path, server: Server, *, port: int, http_port: int, speaks_from: str | None = None
) -> Iterator[str]:
    """Run nginx in front of the server; yields its https address."""
    folder.mkdir()
    certificate(folder)
    (folder / "nginx.conf").write_text(configuration(folder, server, port, http_port, speaks_from))
    log = folder / "start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [nginx, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf", "-g", "daemon off;"],
            stdout=output,
            stderr=output,
        )
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "pitlane.pem")
    context.check_hostname = True
    return context


def browser(folder: Path, base_url: str, address: str = "127.0.0.1") -> httpx.Client:
    """A client at ``address``."""
    transport = httpx.HTTPTransport(verify=trusting(folder), local_address=address)
    return httpx.Client(base_url=base_url, transport=transport, timeout=PATIENCE_S)


def is_up(folder: Path, base_url: str) -> bool:
    try:
        with browser(folder, base_url) as client:
            return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def ask_until_refused(client: httpx.Client) -> int:
    """Ask for links to a new password until no more are given to this address; return how many were."""
    for number in range(ATTEMPTS_MAX):
        if ask(client) == 429:
            return number
    pytest.fail("never refused")


def ask(client: httpx.Client, **headers: str) -> int:
    """Ask for a link to a new password, which costs the server nothing and is counted by address."""
    return client.post("/api/auth/password/forgot", json={"email": "nobody@example.com"}, headers=headers).status_code


async def test_addresses_scheme_sockets_and_limits_are_right_behind_the_documented_nginx(
    nginx: str, tmp_path: Path
) -> None:
    port, beside_port, unlisted_port, *http_ports = (free_port() for _ in range(6))
    proxies = f"127.0.0.1,::1,{BESIDE}"
    with (
        running_servers(tmp_path / "var", BASE_URL=f"https://127.0.0.1:{port}", TRUSTED_PROXIES=proxies) as [server],
        in_front(nginx, tmp_path / "a", server, port=port, http_port=http_ports[0]) as base_url,
        in_front(
            nginx, tmp_path / "b", server, port=beside_port, http_port=http_ports[1], speaks_from=BESIDE
        ) as beside,
        in_front(
            nginx, tmp_path / "c", server, port=unlisted_port, http_port=http_ports[2], speaks_from=UNLISTED
        ) as unlisted,
    ):
        await server.ready()
        for folder, url in (("a", base_url), ("b", beside), ("c", unlisted)):
            await eventually(
                lambda folder=folder, url=url: is_up(tmp_path / folder, url), "nginx is up", within_s=PATIENCE_S
            )
        cookie = await anyio.to_thread.run_sync(see_pages, tmp_path, base_url, beside, unlisted, http_ports[0])
        await see_sockets(tmp_path / "a", base_url, cookie)
        await anyio.to_thread.run_sync(see_limits, tmp_path, base_url, unlisted)


def see_pages(tmp_path: Path, base_url: str, beside: str, unlisted: str, http_port: int) -> str:
    """Look at scheme, cookie and headers; return the session's cookie."""
    moved = httpx.get(f"http://127.0.0.1:{http_port}/mechanic?x=1", headers={"Host": "pitlane.example"})
    assert (moved.status_code, moved.headers["location"]) == (301, "https://pitlane.example/mechanic?x=1")
    with browser(tmp_path / "a", base_url) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "max-age" in page.headers["strict-transport-security"]
        assert f"wss://{base_url.removeprefix('https://')};" in page.headers["content-security-policy"]
        assert page.headers["server"] == "nginx", "nginx' own, without its version"
        made = client.post(
            "/api/auth/register", json={"email": "driver@example.com", "password": PASSWORD, "name": "John Doe"}
        )
        assert made.status_code == 201, made.text
        [cookie] = [one for one in made.headers.get_list("set-cookie") if one.startswith("__Host-pitlane_session=")]
        assert "; Secure" in cookie
        # By the cookie alone, which the client has kept and sends back over TLS.
        assert client.get("/api/me").status_code == 200
        assert client.get("/metrics").status_code == client.get("/readyz").status_code == 403
        assert client.post("/api/auth/login", content=b"x" * 2_000_000).status_code == 413
    with browser(tmp_path / "b", beside) as client:
        assert "strict-transport-security" in client.get("/").headers, (
            "a proxy on another address that is listed is believed"
        )
    with browser(tmp_path / "c", unlisted) as client:
        assert "strict-transport-security" not in client.get("/").headers, "one that is not listed is not"
    return cookie.partition(";")[0]


async def see_sockets(folder: Path, base_url: str, cookie: str) -> None:
    url = f"{base_url.replace('https', 'wss')}/ws/customer"
    options = {"ssl": trusting(folder), "compression": None, "open_timeout": PATIENCE_S}
    async with connect(url, additional_headers={"Cookie": cookie}, origin=base_url, **options) as socket:
        assert json.loads(await socket.recv())["type"] == "welcome"
        await socket.send('{"type": "heartbeat"}')
        assert json.loads(await socket.recv())["type"] == "heartbeat_ack"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers={"Cookie": cookie}, origin="https://evil.example", **options):
            pass
    assert refused.value.response.status_code == 403
    assert "strict-transport-security" in refused.value.response.headers


def see_limits(tmp_path: Path, base_url: str, unlisted: str) -> None:
    """Whoever asks too often shuts out themselves, whatever they claim; behind a proxy that nobody has listed, everybody."""
    with (
        browser(tmp_path / "a", base_url, "127.0.0.11") as bad,
        browser(tmp_path / "a", base_url, "127.0.0.12") as good,
    ):
        assert ask_until_refused(bad) >= 1
        assert ask(bad, **{"X-Forwarded-For": "198.51.100.7"}) == 429
        assert ask(bad, Forwarded="for=198.51.100.8") == 429
        assert ask(good) == 204
    with (
        browser(tmp_path / "c", unlisted, "127.0.0.31") as bad,
        browser(tmp_path / "c", unlisted, "127.0.0.32") as good,
    ):
        ask_until_refused(bad)
        assert ask(good) == 429
