"""Settings: read once from the environment or ``.env``, checked once, handed out in sections.

The only module that reads the environment. Each service receives just its section. Bounds of queues, retries
and waits that an operator might change live there, the others beside what they bound.
"""

import difflib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.errors import MessageError
from email.message import EmailMessage
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import ConfigurationError
from models.networks import Network, is_loopback, networks
from models.redis_url import SCHEMES, ClusterUrl, is_cluster

SMTP_PORTS = {"smtp": 587, "smtps": 465}
"""RFC 8314 §3: for submission, with STARTTLS and with TLS from the first byte."""
SECRET_LEN_MIN = 32
"""Bytes. HS256 needs a key at least as long as its hash (RFC 7518 §3.2)."""
SECRET_VARIETY_MIN = 8
"""Different characters. Thirty-two that are drawn at random have more, even of sixteen kinds, but once in some millions."""
SECRET_PERIOD_MIN = 9
"""Characters. What repeats something shorter over and over is as good as that is."""
SECRETS_OF_EXAMPLES = re.compile(r"change.?me|replace.?me|your.?(own.?)?secret|correct.?horse", re.IGNORECASE)
"""What was copied from a page and not made up; a test holds our own pages to it."""
PREFIX = "PITLANE_"
NAMES_OF_OTHERS = frozenset({"PITLANE_URL", "PITLANE_TOKEN"})
"""What our clients' examples read, which may well run in the same surroundings."""


@dataclass(frozen=True)
class PresenceSettings:
    """How long silence means presence, and how often this node looks."""

    heartbeat_interval_ms: int = 20_000
    timeout_ms: int = 45_000
    grace_ms: int = 3_000
    node_lease_ms: int = 5_000
    """A killed node's mechanics are offline after this: half of the ten seconds that ghosts may live."""
    flush_interval_ms: int = 100
    """Heartbeats are gathered for this long and renewed in one round trip; joins and leaves do not wait for it."""
    sweep_interval_ms: int = 200


@dataclass(frozen=True)
class DispatchSettings:
    """Windows of the two kinds of offer, and the bounds of what is tried again."""

    priority_window_ms: int = 600_000
    broadcast_window_ms: int = 900_000
    start_window_ms: int = 300_000
    """How long whoever has accepted may take to start."""
    session_grace_ms: int = 900_000
    """How long a session may outlast the minutes of its plan."""
    join_url: str | None = None
    """Where sessions take place, with ``{request_id}`` and ``{token}``; ``None``: nowhere that we know of."""
    join_secret: str | None = field(default=None, repr=False)
    resend_interval_ms: int = 5_000
    claim_lease_ms: int = 1_000
    """A node that died between claiming a deadline and committing is taken over after this."""
    reconcile_interval_ms: int = 5_000
    outbox_lease_ms: int = 2_000
    outbox_queue_len_max: int = 10_000
    race_tries_max: int = 20
    """How often a transition that lost a race is decided anew on the new state."""
    refund_retry_first_ms: int = 1_000
    refund_retry_max_ms: int = 20_000
    """Once Stripe can do it again, nobody waits for long; the attempts of many wait for each other."""
    failure_retry_first_ms: int = 1_000
    failure_retry_max_ms: int = 60_000
    failures_max: int = 8
    """An item that has failed so often, unexpectedly, is set aside: with these waits after some two minutes."""
    broadcast_push_max: int = 200
    """Mechanics woken for one broadcast."""
    push_trusted_hosts: str | None = None
    """Push services of the operator's own; see ``dispatch.push.road``."""
    retention_ms: int = 90 * 24 * 3600 * 1000
    """After how long what nobody needs any more is forgotten; see ``dispatch.retention``."""


@dataclass(frozen=True)
class StripeSettings:
    """Where Stripe is and how we prove ourselves to each other."""

    secret_key: str
    webhook_secrets: tuple[str, ...]
    """Any of them may have signed: two during a rotation."""
    api_base: str | None
    """``None`` is Stripe's own address."""
    is_standin: bool
    timeout_s: float = 8.0
    tries_max: int = 2
    session_lifetime_ms: int = 31 * 60_000
    """Stripe takes 30 minutes to 24 hours; one more minute absorbs clocks that differ."""

    @property
    def is_live(self) -> bool | None:
        """Whether the key takes real money (docs.stripe.com/keys); ``None`` if it has another form."""
        kind, _, rest = self.secret_key.partition("_")
        return {"live": True, "test": False}.get(rest.partition("_")[0]) if kind in ("sk", "rk") else None


@dataclass(frozen=True)
class MailSettings:
    """How e-mail is sent. ``host`` ``None``: it is not; ``is_logged``: it is written to the log instead."""

    host: str | None
    port: int
    user: str | None
    password: str | None = field(repr=False)
    is_tls: bool
    """From the first byte; else STARTTLS is used where the server offers it."""
    sender: str
    is_logged: bool
    is_loopback: bool
    """Whether the server is on this very machine, so that nobody listens on the way."""


@dataclass(frozen=True)
class DoorSettings:
    """The HTTP and socket edge."""

    base_url: str
    loopback_url: str
    """Where this machine reaches its own server, whatever the public address."""
    own_origins: frozenset[str]
    secret_keys: tuple[str, ...] = field(repr=False)
    """The first signs tokens, all verify."""
    secure_cookie: bool
    trusted_proxies: tuple[Network, ...]
    heartbeat_interval_ms: int
    presence_timeout_ms: int
    disconnect_grace_ms: int
    priority_window_ms: int
    broadcast_window_ms: int
    metrics_token: str | None = field(default=None, repr=False)
    is_demo: bool = False
    token_lifetime_s: int = 7 * 24 * 3600
    ticket_lifetime_s: int = 30
    frame_len_max: int = 16 * 1024
    body_len_max: int = 64 * 1024
    head_len_max: int = 64 * 1024
    """Of a request: its first line and all its headers."""
    silence_timeout_ms: int = 10_000
    """How long a connection that is no socket may say nothing, a head take to be whole, a body stall, an answer go unread."""
    request_timeout_ms: int = 60_000
    """How long a body may take in all, and an answer to be read."""
    handshake_timeout_ms: int = 15_000
    """How long the handshake of a socket may take us; a client gives up after ten seconds."""
    client_drain_timeout_ms: int = 2_000
    """How long a client may take, in a drain or after a refusal, for what it is in the middle of."""
    guests_max: int = 10_000
    """Connections on which nobody has signed in; at most half of what the limit of open files leaves room for."""
    guests_len_max: int = 12 * 1024 * 1024
    """Bytes that unfinished requests on those may take together."""
    sockets_per_account_max: int = 20
    frames_per_s_max: int = 50
    frames_burst_max: int = 200
    send_buffer_len_max: int = 1024 * 1024
    login_failures_max: int = 5
    """From one address for one account, or of a known browser, within the window."""
    login_failures_of_address_max: int = 20
    login_window_s: int = 60
    jobs_per_connection_max: int = 32


class Settings(BaseSettings):
    """The contract's table of settings, as it stands in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", env_ignore_empty=True)

    env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    base_url: str | None = None
    trusted_proxies: str = "127.0.0.1,::1"
    standin_on_network: Literal["no", "yes"] = "no"
    data_dir: Path = Path("./var")
    database_url: str | None = None
    redis_url: str | None = None
    redis_prefix: str = Field("pitlane", pattern=r"^[A-Za-z0-9_.-]{1,32}$")
    secret_key: str | None = Field(None, repr=False)
    stripe_secret_key: str | None = Field(None, repr=False)
    stripe_webhook_secret: str | None = Field(None, repr=False)
    stripe_api_base: str | None = None
    priority_window_s: float = Field(600, gt=0, le=86_400)
    broadcast_window_s: float = Field(900, gt=0, le=86_400)
    start_window_s: float = Field(300, gt=0, le=86_400)
    session_grace_s: float = Field(900, ge=0, le=86_400)
    join_url: str | None = None
    join_secret: str | None = Field(None, repr=False)
    heartbeat_interval_s: float = Field(20, gt=0, le=3600)
    presence_timeout_s: float = Field(45, gt=0, le=7200)
    disconnect_grace_s: float = Field(3, ge=0, le=60)
    smtp_url: str | None = Field(None, repr=False)
    mail_from: str | None = None
    broadcast_push_max: int = Field(200, ge=0, le=10_000)
    push_trusted_hosts: str | None = None
    metrics_token: str | None = Field(None, repr=False)
    retention_days: int = Field(90, ge=1, le=36_500)
    workers: int = Field(1, ge=1, le=64)

    @classmethod
    def load(cls, **defaults: object) -> "Settings":
        """Read and check everything; raise ``ConfigurationError`` with one sentence that names the setting.

        ``defaults`` stand in for what is not set in the environment (the demo's short windows).
        """
        cls._check_names()
        try:
            settings = cls()
            settings = settings.model_copy(
                update={name: value for name, value in defaults.items() if name not in settings.model_fields_set}
            )
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
            raise ConfigurationError(f"{name}: {first['msg'].lower()}, but it is {first['input']!r}.") from error
        settings._check_relations()
        return settings

    @classmethod
    def _check_names(cls) -> None:
        """Refuse a name that nothing reads: whoever wrote it relies on what it was to change."""
        known = {PREFIX + name.upper() for name in cls.model_fields}
        kept = cls.model_config.get("env_file")
        sources: list[tuple[str, Iterable[str]]] = [("the environment", os.environ)]
        if kept is not None:
            sources.append((str(kept), dotenv_values(str(kept))))
        for source, names in sources:
            for name in _unknown(names, known):
                meant = difflib.get_close_matches(name.upper(), sorted(known), n=1)
                hint = f"{meant[0]} was probably meant" if meant else "docs/settings.md lists them"
                raise ConfigurationError(f"{name}, in {source}, is no setting; {hint}.")

    def check_exposure(self, *, is_demo: bool) -> None:
        """Refuse to let the network in where anybody could pay with the stand-in, or enter as one of the demo's cast."""
        is_open = is_demo or self.stripe().is_standin
        if is_open and not is_loopback(self.host) and self.standin_on_network != "yes":
            what = "enter the demo as anybody in it" if is_demo else "pay with the stand-in for Stripe, without money"
            raise ConfigurationError(
                f"PITLANE_HOST is {self.host}, where everybody on the network could {what}; "
                "if that is wanted, set PITLANE_STANDIN_ON_NETWORK to yes."
            )

    def _check_relations(self) -> None:
        if self.presence_timeout_s < 2 * self.heartbeat_interval_s:
            raise ConfigurationError(
                f"PITLANE_PRESENCE_TIMEOUT_S ({self.presence_timeout_s:g}) must be at least twice "
                f"PITLANE_HEARTBEAT_INTERVAL_S ({self.heartbeat_interval_s:g}), or one late heartbeat shows a mechanic offline."
            )
        if self.stripe_secret_key and not self.stripe_webhook_secret:
            raise ConfigurationError(
                "PITLANE_STRIPE_WEBHOOK_SECRET is missing: with PITLANE_STRIPE_SECRET_KEY set, webhooks must be verified."
            )
        if self.secret_key and not _listed(self.secret_key):
            raise ConfigurationError("PITLANE_SECRET_KEY has commas in it, and no key between them.")
        if self.stripe_webhook_secret and not _listed(self.stripe_webhook_secret):
            raise ConfigurationError("PITLANE_STRIPE_WEBHOOK_SECRET has commas in it, and no secret between them.")
        if self.stripe_webhook_secret and not self.stripe_secret_key:
            raise ConfigurationError(
                "PITLANE_STRIPE_SECRET_KEY is missing, although PITLANE_STRIPE_WEBHOOK_SECRET is set."
            )
        if self.stripe_api_base and not self.stripe_secret_key:
            raise ConfigurationError(
                "PITLANE_STRIPE_API_BASE needs PITLANE_STRIPE_SECRET_KEY: whose keys would it know?"
            )
        if self.database_url is not None and urlsplit(self.database_url).scheme not in (
            "postgresql",
            "postgres",
            "sqlite",
        ):
            raise ConfigurationError("PITLANE_DATABASE_URL must start with postgresql:// (or sqlite:///).")
        if self.redis_url is not None:
            self._check_redis_url(self.redis_url)
        if self.base_url is not None:
            _check_base_url(self.base_url)
        try:
            if not networks(self.trusted_proxies):
                raise ValueError("there is none in it")
        except ValueError as error:
            raise ConfigurationError(
                f"PITLANE_TRUSTED_PROXIES takes addresses and networks, as in 127.0.0.1,10.0.0.0/8; {error}."
            ) from error
        self._check_join()
        self._check_mail()
        if self.env == "production":
            self._check_production()

    def _check_join(self) -> None:
        if self.join_url is None:
            return
        if not self.join_url.startswith(("https://", "http://")):
            raise ConfigurationError("PITLANE_JOIN_URL must start with https:// or http://.")
        if "{token}" not in self.join_url:
            raise ConfigurationError(
                "PITLANE_JOIN_URL must say where {token} goes, and may say where {request_id} does."
            )
        if not self.join_secret or len(self.join_secret.encode()) < SECRET_LEN_MIN:
            raise ConfigurationError(
                f"PITLANE_JOIN_SECRET must be set to at least {SECRET_LEN_MIN} bytes: it signs the tokens in PITLANE_JOIN_URL."
            )

    def _check_mail(self) -> None:
        if self.smtp_url is None:
            if self.mail_from is not None:
                raise ConfigurationError("PITLANE_SMTP_URL is missing, although PITLANE_MAIL_FROM is set.")
            return
        if not _is_smtp_url(self.smtp_url):
            # Not the URL itself: a password may be in it.
            raise ConfigurationError(
                "PITLANE_SMTP_URL must be smtp:// or smtps:// with a host, and nothing after it but a port; user:password@ may "
                "stand before it, with what has a meaning in a URL percent-encoded."
            )
        if self.mail_from is None or not _is_one_sender(self.mail_from):
            raise ConfigurationError(
                "PITLANE_MAIL_FROM must be set to the address that mail comes from, such as Pitlane <no-reply@example.com>."
            )

    def _check_redis_url(self, url: str) -> None:
        if url.partition("://")[0] not in ("redis", "rediss", "unix", *SCHEMES):
            raise ConfigurationError(
                "PITLANE_REDIS_URL must start with redis://, rediss://, unix:// or, for a Redis Cluster, redis+cluster://."
            )
        if is_cluster(url):
            try:
                ClusterUrl.of(url)
            except ValueError as error:
                raise ConfigurationError(
                    f"PITLANE_REDIS_URL must name hosts as in redis+cluster://host:port,host:port; {error}."
                ) from error

    def _check_production(self) -> None:
        """Refuse whatever is good for development only; each sentence names the setting first."""
        for key in _listed(self.secret_key or "") or [""]:
            _check_secret(key)
        if not self.stripe_secret_key:
            raise ConfigurationError(
                "PITLANE_STRIPE_SECRET_KEY must be set where PITLANE_ENV is production: no stand-in for Stripe runs there."
            )
        if self.stripe_secret_key.partition("_")[2].startswith("test_"):
            raise ConfigurationError(
                "PITLANE_STRIPE_SECRET_KEY is a test key, with which nobody pays, and PITLANE_ENV is production."
            )
        if self.stripe_secret_key.startswith("pk_"):
            raise ConfigurationError(
                "PITLANE_STRIPE_SECRET_KEY is a publishable key; a secret or restricted one is wanted."
            )
        for secret in _listed(self.stripe_webhook_secret or ""):
            if not re.fullmatch(r"whsec_[\x21-\x7e]+", secret):
                raise ConfigurationError(
                    "PITLANE_STRIPE_WEBHOOK_SECRET must be the endpoint's signing secret, whsec_…, in production; "
                    "several are separated by commas."
                )
        if self.stripe_api_base and "stripe-standin" in self.stripe_api_base:
            raise ConfigurationError("PITLANE_STRIPE_API_BASE is a stand-in for Stripe, and PITLANE_ENV is production.")
        if not self.base_url or urlsplit(self.base_url).scheme != "https":
            raise ConfigurationError(
                "PITLANE_BASE_URL must be the https:// address that browsers open, where PITLANE_ENV is production."
            )

    @property
    def resolved_base_url(self) -> str:
        """Where browsers reach us, without a trailing slash."""
        if self.base_url:
            return self.base_url.rstrip("/")
        return self.loopback_url

    @property
    def loopback_url(self) -> str:
        """Where this machine reaches its own server."""
        return f"http://{_bracketed(self.reachable_host)}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """A host name under which this machine reaches its own server."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)

    @property
    def resolved_database_url(self) -> str:
        """The database's URL; the embedded SQLite file unless one is set."""
        if self.database_url:
            return self.database_url
        return f"sqlite:///{self.data_dir.absolute() / 'pitlane.sqlite3'}"

    @property
    def embedded_database(self) -> Path | None:
        """The file of the embedded database; ``None`` where the database is a server."""
        url = urlsplit(self.resolved_database_url)
        return Path(url.path[1:]) if url.scheme == "sqlite" and url.path[1:] else None

    @property
    def kept_key(self) -> Path | None:
        """Where the generated signing key is kept; ``None`` where it is a setting."""
        return None if self.secret_key else self.data_dir / "secret_key"

    def signing_keys(self) -> tuple[str, ...]:
        """Return the keys that tokens are verified with, of which the first signs; one is made, once, if none is set.

        There are several while a key is rotated: ``new,old``.
        """
        if self.secret_key is None:
            return (_kept_secret(self.data_dir / "secret_key"),)
        return tuple(key.strip() for key in self.secret_key.split(",") if key.strip())

    def presence(self) -> PresenceSettings:
        """The section for ``presence``."""
        return PresenceSettings(
            heartbeat_interval_ms=_ms(self.heartbeat_interval_s),
            timeout_ms=_ms(self.presence_timeout_s),
            grace_ms=_ms(self.disconnect_grace_s),
        )

    def dispatch(self) -> DispatchSettings:
        """The section for ``dispatch``."""
        return DispatchSettings(
            priority_window_ms=_ms(self.priority_window_s),
            broadcast_window_ms=_ms(self.broadcast_window_s),
            start_window_ms=_ms(self.start_window_s),
            session_grace_ms=_ms(self.session_grace_s),
            join_url=self.join_url,
            join_secret=self.join_secret,
            broadcast_push_max=self.broadcast_push_max,
            push_trusted_hosts=self.push_trusted_hosts,
            retention_ms=self.retention_days * 24 * 3600 * 1000,
        )

    def stripe(self) -> StripeSettings:
        """The section for payments; the stand-in's, mounted into this very server, where no key is set."""
        if self.stripe_secret_key and self.stripe_webhook_secret:
            signing = tuple(_listed(self.stripe_webhook_secret))
            base = self.stripe_api_base.rstrip("/") if self.stripe_api_base else None
            return StripeSettings(self.stripe_secret_key, signing, base, is_standin=False)
        # Derived, so that every node of an installation that shares a secret shares these, too.
        derived = [
            hmac.new(key.encode(), b"stripe stand-in", hashlib.sha256).hexdigest() for key in self.signing_keys()
        ]
        api_base = self.stripe_api_base or f"http://{_bracketed(self.reachable_host)}:{self.port}/stripe-standin"
        return StripeSettings(
            f"sk_test_{derived[0][:32]}",
            tuple(f"whsec_{one[32:]}" for one in derived),
            api_base.rstrip("/"),
            is_standin=True,
        )

    def mail(self) -> MailSettings:
        """The section for e-mail."""
        url = urlsplit(self.smtp_url or "")
        return MailSettings(
            host=url.hostname,
            port=url.port or SMTP_PORTS.get(url.scheme, 0),
            user=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            is_tls=url.scheme == "smtps",
            sender=self.mail_from or "",
            is_logged=self.env == "development",
            is_loopback=is_loopback(url.hostname or ""),
        )

    def doors(self, *, is_demo: bool = False) -> DoorSettings:
        """The section for ``http_api``."""
        base_url = self.resolved_base_url
        origin = urlsplit(base_url)
        origins = {f"{origin.scheme}://{origin.netloc}"}
        if self.base_url is None and self.reachable_host in ("127.0.0.1", "localhost", "::1"):
            # Without an address of its own this is a developer's machine, and these all name it.
            origins |= {f"http://{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        return DoorSettings(
            base_url=base_url,
            loopback_url=self.loopback_url,
            own_origins=frozenset(origins),
            secret_keys=self.signing_keys(),
            secure_cookie=origin.scheme == "https",
            trusted_proxies=networks(self.trusted_proxies),
            metrics_token=self.metrics_token,
            heartbeat_interval_ms=_ms(self.heartbeat_interval_s),
            presence_timeout_ms=_ms(self.presence_timeout_s),
            disconnect_grace_ms=_ms(self.disconnect_grace_s),
            priority_window_ms=_ms(self.priority_window_s),
            broadcast_window_ms=_ms(self.broadcast_window_s),
            is_demo=is_demo,
        )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000)) if seconds else 0


def _listed(text: str) -> list[str]:
    """Return what stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _unknown(names: Iterable[str], known: set[str]) -> list[str]:
    """Return the names that look like settings and are none; in any case, as settings are read."""
    return sorted(
        name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known | NAMES_OF_OTHERS
    )


def _check_base_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fit = False
    if not is_fit:
        raise ConfigurationError("PITLANE_BASE_URL must start with http:// or https:// and name a host.")


def _check_secret(key: str) -> None:
    """Refuse a key that tokens could be forged with by whoever tries the likely ones."""
    if len(key.encode()) < SECRET_LEN_MIN:
        raise ConfigurationError(
            f"PITLANE_SECRET_KEY must be set to at least {SECRET_LEN_MIN} bytes, each key of several, in production."
        )
    repeats = any((key[:period] * len(key)).startswith(key) for period in range(1, SECRET_PERIOD_MIN))
    if repeats or len(set(key)) < SECRET_VARIETY_MIN or SECRETS_OF_EXAMPLES.search(key):
        raise ConfigurationError(
            "PITLANE_SECRET_KEY can be guessed, and PITLANE_ENV is production; make one: openssl rand -base64 48"
        )


def _is_smtp_url(written: str) -> bool:
    try:
        url = urlsplit(written)
        user, password = unquote(url.username or "", errors="strict"), unquote(url.password or "", errors="strict")
        is_fit = url.scheme in SMTP_PORTS and bool(url.hostname) and url.port != 0 and written.isprintable()
    except ValueError:
        return False
    # Without a user, a password would be left out without a word; half of one that has a / or a # in it would be a host.
    is_signed_in = bool(user) or not password
    return is_fit and is_signed_in and url.path in ("", "/") and not url.query and "#" not in written


def _is_one_sender(written: str) -> bool:
    """Tell whether it is one address, perhaps with a name, as mail programs read it (RFC 5322 §3.4)."""
    message = EmailMessage()
    try:
        message["From"] = written
    except (ValueError, IndexError, MessageError):
        # IndexError: Python's parser at an address that ends too early.
        return False
    header = message["From"]
    return len(header.addresses) == 1 and not header.defects and "@" in header.addresses[0].addr_spec.strip("@")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _kept_secret(path: Path) -> str:
    """Return the secret in ``path``, creating it (readable by the owner only) if this is the first start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and linked into place: of two first starts side by side, both end with the same key.
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    if not path.exists():
        aside.touch(mode=0o600)
        aside.write_text(secrets.token_urlsafe(48))
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    return path.read_text().strip()
