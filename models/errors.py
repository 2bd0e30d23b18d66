"""What can break: a shallow tree, raised where a library is called, with the cause chained.

Expected outcomes (a late accept, a used free session) are values, not exceptions; see ``models.outcomes``.
"""


class PitlaneError(Exception):
    """Base of everything below; the message is one sentence for an operator."""


class ConfigurationError(PitlaneError):
    """The settings or the command line cannot work; the process exits 2 and prints the sentence."""


class RedisUnavailable(PitlaneError):
    """Redis did not answer within its bound. Retrying later is safe."""


class DatabaseUnavailable(PitlaneError):
    """SQL did not answer within its bound. Retrying later is safe: transactions are all or nothing."""


class StripeUnavailable(PitlaneError):
    """Stripe did not give an answer within its bound. Retrying under the same idempotency key is safe."""


class StripeRefused(PitlaneError):
    """Stripe answered that it will not do this; retrying the same thing is pointless."""

    def __init__(self, message: str, *, code: str | None) -> None:
        super().__init__(message)
        self.code = code
