"""Settings: read once from the environment or ``.env``, checked once, handed out in sections.

The only module that reads the environment. Each service receives just its section. Bounds of queues, retries
and waits that an operator might change live there, the others beside what they bound.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import ConfigurationError
from models.redis_url import SCHEMES, ClusterUrl, is_cluster

SMTP_PORTS = {"smtp": 587, "smtps": 465}
"""RFC 8314 §3: for submission, with STARTTLS and with TLS from the first byte."""
SENDER = re.compile(r"[^@\s<>]+@[^@\s<>]+|[^<>\r\n]*<[^@\s<>]+@[^@\s<>]+>")
SECRET_LEN_MIN = 32
"""Bytes. HS256 needs a key at least as long as its hash (RFC 7518 §3.2)."""


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


@dataclass(frozen=True)
class DoorSettings:
    """The HTTP and socket edge."""

    base_url: str
    loopback_url: str
    """Where this machine reaches its own server, whatever the public address."""
    own_origins: frozenset[str]
    secret_keys: tuple[str, ...] = field(repr=False)
    """The first signs tokens, all verify."""
    is_https: bool
    """Whether the public address is, whatever a proxy says of a single request."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    heartbeat_interval_ms: int
    presence_timeout_ms: int
    disconnect_grace_ms: int
    priority_window_ms: int
    broadcast_window_ms: int
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
    guests_len_max: int = 24 * 1024 * 1024
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

    model_config = SettingsConfigDict(env_prefix="PITLANE_", env_file=".env", extra="ignore", env_ignore_empty=True)

    env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    base_url: str | None = None
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
    trusted_proxies: str = "127.0.0.1,::1"
    smtp_url: str | None = Field(None, repr=False)
    mail_from: str | None = None
    broadcast_push_max: int = Field(200, ge=0, le=10_000)
    push_trusted_hosts: str | None = None
    retention_days: int = Field(90, ge=1, le=36_500)
    workers: int = Field(1, ge=1, le=64)

    @classmethod
    def load(cls, **defaults: object) -> "Settings":
        """Read and check everything; raise ``ConfigurationError`` with one sentence that names the setting.

        ``defaults`` stand in for what is not set in the environment (the demo's short windows).
        """
        try:
            settings = cls()
            settings = settings.model_copy(
                update={name: value for name, value in defaults.items() if name not in settings.model_fields_set}
            )
        except ValidationError as error:
            first = error.errors()[0]
            name = "PITLANE_" + "_".join(str(part) for part in first["loc"]).upper()
            raise ConfigurationError(f"{name}: {first['msg'].lower()}, but it is {first['input']!r}.") from error
        settings._check_relations()
        return settings

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
        if self.base_url is not None and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigurationError("PITLANE_BASE_URL must start with http:// or https://.")
        self._trusted_proxies()
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
            return
        try:
            url = urlsplit(self.smtp_url)
            is_fit = url.scheme in SMTP_PORTS and bool(url.hostname) and url.path in ("", "/") and url.port != 0
        except ValueError:
            is_fit = False
        if not is_fit:
            # Not the URL itself: a password may be in it.
            raise ConfigurationError(
                "PITLANE_SMTP_URL must be smtp:// or smtps:// with a host; user:password@ may stand before it."
            )
        if self.mail_from is None or not SENDER.fullmatch(self.mail_from):
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
        if not self.secret_key or len(self.secret_key.encode()) < SECRET_LEN_MIN:
            raise ConfigurationError(
                f"PITLANE_SECRET_KEY must be set to at least {SECRET_LEN_MIN} bytes in production."
            )
        if not self.stripe_secret_key:
            raise ConfigurationError(
                "PITLANE_STRIPE_SECRET_KEY must be set in production, where no stand-in for Stripe runs."
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
            signing = tuple(part.strip() for part in self.stripe_webhook_secret.split(",") if part.strip())
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
        )

    def _trusted_proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        parts = [part.strip() for part in self.trusted_proxies.split(",") if part.strip()]
        try:
            return tuple(ip_network(part) for part in parts)
        except ValueError as error:
            raise ConfigurationError(
                f"PITLANE_TRUSTED_PROXIES must be addresses and networks, separated by commas: {error}."
            ) from error

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
            is_https=origin.scheme == "https",
            trusted_proxies=self._trusted_proxies(),
            heartbeat_interval_ms=_ms(self.heartbeat_interval_s),
            presence_timeout_ms=_ms(self.presence_timeout_s),
            disconnect_grace_ms=_ms(self.disconnect_grace_s),
            priority_window_ms=_ms(self.priority_window_s),
            broadcast_window_ms=_ms(self.broadcast_window_s),
            is_demo=is_demo,
        )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000)) if seconds else 0


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
