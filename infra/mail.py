"""E-mail, sent by SMTP in a lane of its own: a mail server that hangs delays nobody but other mail.

What waits is kept in memory: a restart forgets it, so only what may be asked for again is sent this way. Without a server, mail is
written to the log, for whoever develops.
"""

from collections import deque
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final

import aiosmtplib
import anyio
import structlog

from infra.loops import Backoff
from infra.metrics import MAIL
from models.settings import MailSettings

WAITING_MAX: Final = 1_000
TRIES_MAX: Final = 4
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
TIMEOUT_S: Final = 15.0
"""For one conversation with the server."""


@dataclass(frozen=True)
class Mail:
    """A message in plain text to one person."""

    to: str
    subject: str
    text: str


class Mailer:
    """Sends mail, one after the other."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings
        self._waiting: deque[Mail] = deque()
        self._has_mail = anyio.Event()
        self._log = structlog.get_logger("mail")
        for outcome in ("sent", "failed", "dropped"):
            # There from the first scrape on.
            MAIL.labels(outcome)

    def post(self, mail: Mail) -> None:
        """Have it sent; never waits. Of too many, the newest are dropped, and counted."""
        if len(self._waiting) >= WAITING_MAX:
            MAIL.labels("dropped").inc()
            self._log.error("mail_dropped", waiting=WAITING_MAX)
            return
        self._waiting.append(mail)
        self._has_mail.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._has_mail.wait()
            self._has_mail = anyio.Event()
            while self._waiting:
                await self._deliver(self._waiting.popleft())

    async def _deliver(self, mail: Mail) -> None:
        if self._settings.host is None:
            if self._settings.is_logged:
                self._log.info("mail", to=mail.to, subject=mail.subject, text=mail.text)
            else:
                self._log.warning("mail_not_sent", why="PITLANE_SMTP_URL is not set")
            return
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        for tries in range(1, TRIES_MAX + 1):
            try:
                await self._send(mail)
            except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
                # Neither whom it is for nor what it says: a link in it opens an account. ValueError: an address that is none.
                self._log.warning(
                    "mail_failed", tries=tries, error=type(error).__name__, code=getattr(error, "code", None)
                )
                if tries == TRIES_MAX or _is_final(error):
                    MAIL.labels("failed").inc()
                    return
                await backoff.wait()
            else:
                MAIL.labels("sent").inc()
                return

    async def _send(self, mail: Mail) -> None:
        message = EmailMessage()
        message["From"] = self._settings.sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._settings.sender.rpartition("@")[2].rstrip(">"))
        # RFC 3834 §5: an answering machine is not to answer.
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        with anyio.fail_after(TIMEOUT_S):
            await aiosmtplib.send(
                message,
                hostname=self._settings.host,
                port=self._settings.port,
                username=self._settings.user,
                password=self._settings.password,
                use_tls=self._settings.is_tls,
                # None: STARTTLS where the server offers it.
                start_tls=False if self._settings.is_tls else None,
                timeout=TIMEOUT_S,
            )


def _is_final(error: Exception) -> bool:
    """Tell whether a server has refused for good (RFC 5321 §4.2.1: 5yz)."""
    code = getattr(error, "code", None)
    return isinstance(error, ValueError | aiosmtplib.SMTPRecipientsRefused) or (isinstance(code, int) and code >= 500)
