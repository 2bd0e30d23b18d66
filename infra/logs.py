"""Logging: one line per event on standard error; for people in development, JSON for machines in production."""

import logging
import sys

import structlog

from models.settings import Settings


def configure(settings: Settings, *, is_quiet: bool = False) -> None:
    """Set up logging for this process; ``is_quiet`` leaves only warnings (the demo prints for people)."""
    level = logging.WARNING if is_quiet else logging.INFO
    is_production = settings.env == "production"
    renderer = structlog.processors.JSONRenderer() if is_production else console_renderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info if is_production else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak through the standard library; only what needs attention is let through.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def console_renderer() -> structlog.dev.ConsoleRenderer:
    """Return what writes for people.

    Tracebacks are plain: the renderer's own print local variables, and with them passwords and keys.
    """
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
