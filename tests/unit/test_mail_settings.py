"""Where mail goes out, as it stands in the environment."""

import pytest

from models.errors import ConfigurationError
from models.settings import Settings

SENDER = "Pitlane <no-reply@example.com>"


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    for name, value in variables.items():
        monkeypatch.setenv(f"PITLANE_{name}", value)
    return Settings.load()


def test_user_and_password_are_decoded_and_the_port_follows_from_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "smtps://post%40example.com:p%40ss%3Aw%2Frd%20%25+@mail.example.com"
    mail = loaded(monkeypatch, SMTP_URL=url, MAIL_FROM=SENDER).mail()
    assert (mail.user, mail.password) == ("post@example.com", "p@ss:w/rd %+")
    assert (mail.host, mail.port, mail.is_tls, mail.sender) == ("mail.example.com", 465, True, SENDER)
    mail = loaded(monkeypatch, SMTP_URL="smtp://mail.example.com").mail()
    assert (mail.port, mail.user, mail.is_tls) == (587, None, False)
    assert loaded(monkeypatch, SMTP_URL="smtp://[::1]:2525").mail().port == 2525
    assert "p@ss" not in repr(mail)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("localhost", True), ("127.8.8.8", True), ("[::1]", True), ("127.0.0.1.example.com", False)],
)
def test_only_this_very_machine_is_loopback(monkeypatch: pytest.MonkeyPatch, host: str, is_loopback: bool) -> None:
    assert loaded(monkeypatch, SMTP_URL=f"smtp://{host}", MAIL_FROM=SENDER).mail().is_loopback is is_loopback


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtp://mail.example.com:0",
        "smtp://mail.example.com:many",
        "smtp://mail.example.com/inbox",
        "smtp://mail.example.com?tls=no",
        "smtp://user:secr#et@mail.example.com",
        "smtp://user:secr/et@mail.example.com",
        "smtp://:secret@mail.example.com",
        "smtp://user:%ff@mail.example.com",
    ],
)
def test_an_address_that_cannot_be_a_mail_servers_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with pytest.raises(ConfigurationError, match="PITLANE_SMTP_URL") as refused:
        loaded(monkeypatch, SMTP_URL=url, MAIL_FROM=SENDER)
    assert "secr" not in str(refused.value)


@pytest.mark.parametrize(
    "sender",
    [
        "Pitlane",
        "no-reply@",
        "@example.com",
        "a@example.com, b@example.com",
        "Acme, Inc <a@example.com>",
        "a@b\nBcc: c@d",
    ],
)
def test_whom_mail_comes_from_must_be_one_address(monkeypatch: pytest.MonkeyPatch, sender: str) -> None:
    with pytest.raises(ConfigurationError, match="PITLANE_MAIL_FROM"):
        loaded(monkeypatch, SMTP_URL="smtp://mail.example.com", MAIL_FROM=sender)


@pytest.mark.parametrize(
    "sender", ["no-reply@example.com", SENDER, '"Acme, Inc" <a@example.com>', "Müller <a@example.com>"]
)
def test_an_address_may_have_a_name(monkeypatch: pytest.MonkeyPatch, sender: str) -> None:
    assert loaded(monkeypatch, SMTP_URL="smtp://mail.example.com", MAIL_FROM=sender).mail().sender == sender


def test_each_of_the_two_asks_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="PITLANE_SMTP_URL is missing"):
        loaded(monkeypatch, MAIL_FROM=SENDER)
    monkeypatch.delenv("PITLANE_MAIL_FROM")
    with pytest.raises(ConfigurationError, match="PITLANE_MAIL_FROM"):
        loaded(monkeypatch, SMTP_URL="smtp://mail.example.com")
