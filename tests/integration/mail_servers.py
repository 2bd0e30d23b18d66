"""Real mail servers on loopback for tests: aiosmtpd's SMTP, with what it has been told kept for the test to read."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from anyio.abc import SocketAttribute
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER: Final = "post@example.com"
PASSWORD: Final = "p@ss:w/rd %"


@dataclass
class Received:
    """One mail as the server took it. ``was_encrypted``: whether it came over TLS."""

    recipients: list[str]
    message: EmailMessage
    user: str | None
    was_encrypted: bool


@dataclass
class MailServer:
    """A server, and what has come to it."""

    port: int
    answers: dict[str, list[str]] = field(default_factory=dict)
    """What it says to the next messages for a recipient instead of taking them, in order."""
    received: list[Received] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)
    """For whom a message was to be left, each time."""
    signed_in: list[tuple[str, bool]] = field(default_factory=list)
    """Passwords that were sent, and whether over TLS."""

    # --- what aiosmtpd calls ---

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        for recipient in envelope.rcpt_tos:
            self.tries.append(recipient)
            if self.answers.get(recipient):
                return self.answers[recipient].pop(0)
        message = message_from_bytes(envelope.content, policy=policy.SMTP)  # type: ignore[arg-type]
        user = session.auth_data.login.decode() if session.authenticated else None
        self.received.append(Received(envelope.rcpt_tos, message, user, was_encrypted=session.ssl is not None))
        return "250 taken"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.signed_in.append((data.password.decode(), session.ssl is not None))
        is_right = data.login == USER.encode() and data.password == PASSWORD.encode()
        return AuthResult(success=is_right, handled=False, auth_data=data)


@asynccontextmanager
async def mail_server(
    *, tls: ssl.SSLContext | None = None, is_tls_at_once: bool = False, asks_for_password: bool = False
) -> AsyncIterator[MailServer]:
    """Run a server; with ``tls`` it offers STARTTLS, or speaks it from the first byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = MailServer(listener.getsockname()[1])
    options: dict[str, Any] = {"hostname": "localhost", "enable_SMTPUTF8": True, "ident": "test"}
    if tls is not None and not is_tls_at_once:
        options["tls_context"] = tls
    if asks_for_password:
        options |= {"authenticator": server.authenticate, "auth_required": True, "auth_require_tls": False}
    connections: list[SMTP] = []

    def connected() -> SMTP:
        with warnings.catch_warnings():
            # That a password may come without TLS is what a test is about.
            warnings.simplefilter("ignore")
            connections.append(SMTP(server, **options))
        return connections[-1]

    at_once = tls if is_tls_at_once else None
    running = await asyncio.get_running_loop().create_server(connected, sock=listener, ssl=at_once)
    try:
        yield server
    finally:
        running.close()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        # What is aborted is closed in the loop's next turn.
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, list[Any]]]:
    """Listen, take connections and never say a word; yields the port and the connections."""
    connections: list[Any] = []
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def say_nothing(stream: Any) -> None:
        async with stream:
            connections.append(stream)
            await anyio.sleep_forever()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, say_nothing)
        yield listener.extra(SocketAttribute.local_port), connections
        tasks.cancel_scope.cancel()


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for ``localhost`` and 127.0.0.1, and return it as a server has it, and as a file to be trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, secret)
    return context, trusted
