"""What can break: a shallow tree, raised where a library is called, with the cause chained.

Each library's exceptions are translated in one place: Redis' in ``infra.redis_link``, the databases' in ``infra.database``,
Stripe's in ``dispatch.money.stripe_api``. Whoever calls these catches ``Unavailable``. Beside
it, Stripe may refuse (``StripeRefused``), and a unique index may (``IntegrityError``); everything else that comes is a bug.

Expected outcomes (a late accept, a used free session) are values, not exceptions; see ``models.outcomes``.
"""


class PitlaneError(Exception):
    """Base of everything below; the message is one sentence for an operator."""


class ConfigurationError(PitlaneError):
    """The settings or the command line cannot work; the process exits 2 and prints the sentence."""


class Unavailable(PitlaneError):
    """A part of the world did not do what it was asked, for now. Waiting helps, and retrying later is safe."""


class Overloaded(PitlaneError):
    """Too many ask for the same just now; a little later there is room again."""


class RedisUnavailable(Unavailable):
    """Redis did not answer within its bound, or says that it cannot just now."""


class RedisRefused(PitlaneError):
    """Redis answered that it will not do this: a mistake of ours in a command, or somebody else's value in the place of ours."""


class DatabaseUnavailable(Unavailable):
    """SQL did not answer within its bound. Transactions are all or nothing."""


class StripeUnavailable(Unavailable):
    """Stripe did not answer within its bound, or with an error of its own. Retrying under the same idempotency key is safe."""

    is_answer = False
    """Whether Stripe has answered, with an error of its own (HTTP 5xx): it may keep that under the key, and repeat it for a day."""
    is_replayed = False
    """Whether it says that it repeats what it has answered before (``Idempotent-Replayed``)."""


class StripeForbids(StripeUnavailable):
    """Stripe does not know our key, or the key has not the right to this: an operator has to mend that, and then it works."""


class StripeRefused(PitlaneError):
    """Stripe answered that it will not do this; retrying the same thing is pointless.

    ``code``, and ``param``, what of it Stripe will not have, are Stripe's words (docs.stripe.com/api/errors), ``None`` where it
    has none. ``reason`` is its sentence for people, without any key.
    """

    def __init__(self, message: str, *, code: str | None, param: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.reason = reason
