"""E-mail, sent by SMTP in a lane of its own: a mail server that hangs delays nobody but other mail.

What waits is kept in memory: a restart forgets it, so only what may be asked for again is sent this way. Without a server, mail is
written to the log, for whoever develops.
"""

import heapq
import ssl
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from itertools import count
from typing import Final

import aiosmtplib
import anyio
import structlog

from infra.loops import failing_alone
from infra.metrics import MAIL
from models.settings import MailSettings

WAITING_MAX: Final = 1_000
PATIENCE_S: Final = 600.0
"""For how long a mail is tried. What it offers is seldom good for longer than half an hour."""
RETRY_FIRST_S: Final = 2.0
RETRY_MAX_S: Final = 120.0
"""Servers that do not know us yet take a mail on the second try, some minutes later (RFC 6647 §2)."""
TIMEOUT_S: Final = 15.0
"""For one conversation with the server."""


@dataclass(frozen=True)
class Mail:
    """A message in plain text to one person."""

    to: str
    subject: str
    text: str


class NotToBeSent(Exception):
    """There is something about a mail, or about the server, that another try will not change. The message names nobody."""


@dataclass(order=True)
class _Waiting:
    """A mail, and when its next try is due. Times are those of the event loop; ``number`` keeps equals in order."""

    due_s: float
    number: int
    since_s: float = field(compare=False)
    delay_s: float = field(compare=False)
    mail: Mail = field(compare=False)


class Mailer:
    """Sends mail, one after the other; what has to be tried again lets the others go first."""

    def __init__(
        self,
        settings: MailSettings,
        *,
        waiting_max: int = WAITING_MAX,
        patience_s: float = PATIENCE_S,
        retry_first_s: float = RETRY_FIRST_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._waiting_max = waiting_max
        self._patience_s = patience_s
        self._retry_first_s = retry_first_s
        self._timeout_s = timeout_s
        self._waiting: list[_Waiting] = []
        """A heap. The one that is being sent is in it until its fate is known."""
        self._numbers = count()
        self._has_changed = anyio.Event()
        self._tls: ssl.SSLContext | None = None
        self._log = structlog.get_logger("mail")
        for outcome in ("sent", "failed", "dropped"):
            # There from the first scrape on.
            MAIL.labels(outcome)

    def post(self, mail: Mail) -> bool:
        """Have it sent; never waits. Of too many, the newest are dropped, and counted: then ``False``."""
        if self._settings.host is None:
            self._write_down(mail)
            return True
        if len(self._waiting) >= self._waiting_max:
            MAIL.labels("dropped").inc()
            self._log.error("mail_dropped", waiting=self._waiting_max)
            return False
        now_s = anyio.current_time()
        heapq.heappush(self._waiting, _Waiting(now_s, next(self._numbers), now_s, self._retry_first_s, mail))
        self._change()
        return True

    async def drained(self) -> None:
        """Return when nothing waits that has not been tried yet."""
        while any(one.since_s == one.due_s for one in self._waiting):
            await self._has_changed.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            left_s = self._waiting[0].due_s - anyio.current_time() if self._waiting else float("inf")
            if left_s > 0:
                with anyio.move_on_after(left_s):
                    await self._has_changed.wait()
                continue
            one = self._waiting[0]
            next_s: float | None = None
            with failing_alone("mail"):
                next_s = await self._deliver(one)
            self._waiting.remove(one)
            if next_s is not None:
                one.due_s, one.delay_s = next_s, min(one.delay_s * 2, RETRY_MAX_S)
                self._waiting.append(one)
            heapq.heapify(self._waiting)
            self._change()

    async def _deliver(self, one: _Waiting) -> float | None:
        """Try once; return when to try again, ``None`` for never."""
        try:
            await self._send(one.mail)
        except (aiosmtplib.SMTPException, NotToBeSent, OSError, TimeoutError) as error:
            next_s = anyio.current_time() + one.delay_s
            is_over = _is_final(error) or next_s > one.since_s + self._patience_s
            # Neither whom it is for nor what it says, and not the server's words, which repeat that: a link in it opens an account.
            self._log.warning(
                "mail_failed",
                error=str(error) if isinstance(error, NotToBeSent) else type(error).__name__,
                code=_code_of(error),
                is_over=is_over,
            )
            if not is_over:
                return next_s
            MAIL.labels("failed").inc()
        else:
            MAIL.labels("sent").inc()
        return None

    async def _send(self, mail: Mail) -> None:
        recipient = _only_recipient(mail.to)
        message = _message(mail, sender=self._settings.sender, recipient=recipient)
        if self._tls is None:
            # Who may vouch for a server is up to this machine; reading that takes some 20 ms, once.
            self._tls = await anyio.to_thread.run_sync(ssl.create_default_context)
        with anyio.fail_after(self._timeout_s):
            client = aiosmtplib.SMTP(
                hostname=self._settings.host,
                port=self._settings.port,
                use_tls=self._settings.is_tls,
                # None: STARTTLS where the server offers it.
                start_tls=False if self._settings.is_tls else None,
                tls_context=self._tls,
                timeout=self._timeout_s,
            )
            async with client:
                if self._settings.user is not None:
                    if client.get_transport_info("sslcontext") is None and not self._settings.is_loopback:
                        raise NotToBeSent("the server offers no TLS, and a password would be sent in the clear")
                    await client.login(self._settings.user, self._settings.password or "")
                await client.send_message(message, recipients=[recipient])

    def _write_down(self, mail: Mail) -> None:
        if self._settings.is_logged:
            self._log.info("mail", to=mail.to, subject=mail.subject, text=mail.text)
        else:
            MAIL.labels("failed").inc()
            self._log.warning("mail_not_sent", why="PITLANE_SMTP_URL is not set")

    def _change(self) -> None:
        self._has_changed.set()
        self._has_changed = anyio.Event()


def _message(mail: Mail, *, sender: str, recipient: str) -> EmailMessage:
    message = EmailMessage()
    try:
        message["From"] = sender
        message["To"] = recipient
        # The library refuses line breaks, so no header can bring others along (RFC 5322 §2.2).
        message["Subject"] = mail.subject
    except ValueError as error:
        raise NotToBeSent("a header would have a line break") from error
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip("> "))
    # RFC 3834 §5: an answering machine is not to answer.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message


def _only_recipient(written: str) -> str:
    """Return the address as the envelope has it; raises ``NotToBeSent`` for what is not exactly one (RFC 5321 §4.1.2).

    What is registered as an e-mail address is any text with one @: a list of two, say, or an address with a comment.
    """
    local, _, domain = written.rpartition("@")
    try:
        domain = domain.encode("idna").decode()
        # A local part in another script is what the parser, which knows RFC 5322 alone, does not take (RFC 6531 §3.3).
        plain = "".join(character if character.isascii() else "x" for character in local)
        parsed = Address(addr_spec=f"{plain}@{domain}")
    except (ValueError, IndexError, MessageError) as error:
        # IndexError: Python's parser at an address that ends too early.
        raise NotToBeSent("the account's e-mail address is none") from error
    if str(parsed) != f"{plain}@{domain}":
        raise NotToBeSent("the account's e-mail address is none")
    return f"{local}@{domain}"


def _code_of(error: Exception) -> int | None:
    """Return what the server has answered, if it has (RFC 5321 §4.2)."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None


def _is_final(error: Exception) -> bool:
    """Tell whether another try will not help: the server has refused for good (5yz)."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        # Whoever runs the server may be about to mend that.
        return False
    return isinstance(error, NotToBeSent | aiosmtplib.SMTPNotSupported) or (_code_of(error) or 0) >= 500
