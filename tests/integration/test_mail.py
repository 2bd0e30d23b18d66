"""E-mail, sent to real servers: over TLS or not, with a password or without, to servers that hang, refuse or come back."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest
from structlog.testing import capture_logs

from infra.mail import Mail, Mailer
from infra.metrics import MAIL
from models.settings import MailSettings, Settings
from tests.integration.mail_servers import PASSWORD, USER, MailServer, certified, mail_server, silent_server
from tests.parts import eventually

SENDER = "Pitlane <no-reply@example.com>"
TO = "mia@example.com"
SECRET = "token-that-opens-an-account"
Certificate = tuple[ssl.SSLContext, Path]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certified(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate that this machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    return certificate[0]


def settings_of(url: str) -> MailSettings:
    return Settings(_env_file=None, smtp_url=url, mail_from=SENDER).mail()


def to_(server: MailServer, scheme: str = "smtp", user: str = "") -> MailSettings:
    return settings_of(f"{scheme}://{user}localhost:{server.port}")


WITH_PASSWORD = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"


def letter(to: str = TO, subject: str = "Your link") -> Mail:
    return Mail(to, subject, f"Grüße, open https://pitlane.example/reset#{SECRET}\n.\nIt is good once.\n")


@asynccontextmanager
async def running(settings: MailSettings, **bounds: float) -> AsyncIterator[Mailer]:
    mailer = Mailer(settings, **bounds)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mailer.run)
        yield mailer
        tasks.cancel_scope.cancel()


def counted(outcome: str) -> Callable[[], float]:
    """Return how many more have ended so since."""
    child = MAIL.labels(outcome)
    before = child._value.get()
    return lambda: child._value.get() - before


async def test_a_mail_arrives_as_it_was_written_at_whom_it_is_for_and_at_nobody_else():
    async with mail_server() as server, running(to_(server)) as mailer:
        mailer.post(letter())
        await eventually(lambda: server.received, "it arrives")
    [taken] = server.received
    assert taken.recipients == [TO]
    assert (taken.message["to"], taken.message["from"], taken.message["subject"]) == (TO, SENDER, "Your link")
    assert taken.message["auto-submitted"] == "auto-generated"
    assert taken.message["date"] is not None
    assert taken.message["message-id"].endswith("@example.com>")
    assert taken.message.get_content().replace("\r\n", "\n") == letter().text


async def test_starttls_is_used_where_it_is_offered_and_the_password_goes_over_it(trusted: ssl.SSLContext):
    async with (
        mail_server(tls=trusted, asks_for_password=True) as server,
        running(to_(server, user=WITH_PASSWORD)) as mailer,
    ):
        mailer.post(letter())
        await eventually(lambda: server.received, "it arrives")
    assert [(one.user, one.was_encrypted) for one in server.received] == [(USER, True)]
    assert server.signed_in == [(PASSWORD, True)]


async def test_smtps_speaks_tls_from_the_first_byte(trusted: ssl.SSLContext):
    async with (
        mail_server(tls=trusted, is_tls_at_once=True, asks_for_password=True) as server,
        running(to_(server, "smtps", WITH_PASSWORD)) as mailer,
    ):
        mailer.post(letter())
        await eventually(lambda: server.received, "it arrives")
    assert server.signed_in[0][0] == PASSWORD


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_server_whose_certificate_nobody_vouches_for_gets_neither_mail_nor_password(
    certificate: Certificate, scheme: str
):
    failed = counted("failed")
    async with (
        mail_server(tls=certificate[0], is_tls_at_once=scheme == "smtps", asks_for_password=True) as server,
        running(to_(server, scheme, WITH_PASSWORD), retry_first_s=0.01, patience_s=0.05) as mailer,
    ):
        mailer.post(letter())
        await eventually(failed, "it is given up")
    assert (server.received, server.signed_in) == ([], [])


async def test_a_password_is_not_told_to_whoever_listens_where_there_is_no_tls():
    failed = counted("failed")
    async with mail_server(asks_for_password=True) as server:
        # Not on this machine, as far as the settings say: only its address is changed to where the server is.
        elsewhere = replace(to_(server, user=WITH_PASSWORD), is_loopback=False)
        async with running(elsewhere) as mailer:
            mailer.post(letter())
            await eventually(failed, "it is given up")
        assert (server.received, server.signed_in) == ([], [])
        async with running(to_(server, user=WITH_PASSWORD)) as mailer:
            mailer.post(letter())
            await eventually(lambda: server.received, "on loopback nobody listens")


async def test_what_is_refused_for_now_is_tried_again_and_others_do_not_wait_for_it():
    async with mail_server() as server, running(to_(server), retry_first_s=0.05) as mailer:
        server.answers["busy@example.com"] = ["451 greylisted", "451 greylisted"]
        mailer.post(letter("busy@example.com"))
        mailer.post(letter("free@example.com"))
        await eventually(lambda: len(server.received) == 2, "both arrive")
    assert [one.recipients for one in server.received] == [["free@example.com"], ["busy@example.com"]]
    assert server.tries == ["busy@example.com", "free@example.com", "busy@example.com", "busy@example.com"]


async def test_what_is_refused_for_good_is_not_tried_again_and_nothing_of_it_is_logged():
    failed = counted("failed")
    async with mail_server() as server, running(to_(server), retry_first_s=0.01) as mailer:
        server.answers[TO] = [f"550 no such mailbox {TO} {SECRET}"]
        with capture_logs() as logs:
            mailer.post(letter())
            mailer.post(letter("next@example.com"))
            await eventually(lambda: server.received, "the next one arrives")
    assert (failed(), server.tries) == (1, [TO, "next@example.com"])
    assert [entry["event"] for entry in logs] == ["mail_failed"]
    assert TO not in str(logs)
    assert SECRET not in str(logs)


async def test_a_server_that_is_away_is_waited_for_but_not_for_ever():
    failed, sent = counted("failed"), counted("sent")
    async with silent_server() as (port, _):
        pass
    # Nobody listens there now.
    async with running(settings_of(f"smtp://127.0.0.1:{port}"), retry_first_s=0.01, patience_s=0.1) as mailer:
        mailer.post(letter())
        await eventually(failed, "it is given up")
    assert sent() == 0


async def test_a_server_that_hangs_is_left_after_a_bounded_time_and_tried_again():
    async with silent_server() as (port, connections):
        settings = settings_of(f"smtp://127.0.0.1:{port}")
        async with running(settings, timeout_s=0.1, retry_first_s=0.01) as mailer:
            mailer.post(letter())
            await eventually(lambda: len(connections) >= 2, "it is tried again")


async def test_of_too_many_the_newest_are_dropped_and_counted_and_whoever_posts_never_waits():
    dropped = counted("dropped")
    async with silent_server() as (port, _), running(settings_of(f"smtp://127.0.0.1:{port}"), waiting_max=3) as mailer:
        assert [mailer.post(letter()) for _ in range(5)] == [True, True, True, False, False]
    assert dropped() == 2


@pytest.mark.parametrize(
    "address",
    [
        "a@b.c\r\nBcc: evil@example.com",
        "a@b.c\nRCPT TO:<evil@example.com>",
        "root,evil@example.com",
        "a>@b.c",
        "a(b)@c.d",
        "<a@b.c",
        "a@",
    ],
)
async def test_an_address_that_is_more_than_one_address_is_written_to_nobody(address: str):
    failed = counted("failed")
    async with mail_server() as server, running(to_(server)) as mailer:
        mailer.post(letter(address))
        mailer.post(letter())
        await eventually(lambda: server.received, "the next one arrives")
    assert failed() == 1
    assert [one.recipients for one in server.received] == [[TO]]
    assert "evil" not in str(server.received[0].message)


async def test_addresses_in_other_scripts_are_written_to():
    async with mail_server() as server, running(to_(server)) as mailer:
        mailer.post(letter("jörg@bücher.example"))
        mailer.post(letter("mia@bücher.example"))
        await eventually(lambda: len(server.received) == 2, "both arrive")
    assert [one.recipients for one in server.received] == [
        ["jörg@xn--bcher-kva.example"],
        ["mia@xn--bcher-kva.example"],
    ]


async def test_a_subject_cannot_bring_headers_of_its_own():
    failed = counted("failed")
    async with mail_server() as server, running(to_(server)) as mailer:
        mailer.post(letter(subject="Hello\r\nBcc: evil@example.com"))
        await eventually(failed, "it is refused")
    assert server.tries == []


async def test_without_a_server_mail_is_logged_in_development_and_in_production_not():
    for env, words in (("development", SECRET), ("production", "PITLANE_SMTP_URL")):
        settings = replace(Settings(_env_file=None).mail(), is_logged=env == "development")
        with capture_logs() as logs:
            async with running(settings) as mailer:
                mailer.post(letter())
                await eventually(lambda: logs, "it is dealt with")
        assert words in str(logs)
        assert (SECRET in str(logs)) is (env == "development")


async def test_what_is_being_sent_is_sent_before_the_end():
    async with mail_server() as server, running(to_(server)) as mailer:
        mailer.post(letter())
        await mailer.drained()
        assert len(server.received) == 1
