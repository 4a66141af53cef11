"""The exceptions that athina_trace raises on purpose.

AthinaTraceError
├── SettingsError      a setting has a value that its rule forbids (also a ValueError)
└── OutboxError        an entry could not be committed (also an OSError)
    └── OutboxFullError    `max_outbox_bytes` is reached

None of them leaves a decorated call: there, the logger `athina_trace` logs them.
"""

from __future__ import annotations


class AthinaTraceError(Exception):
    """The base class: `except AthinaTraceError` catches everything that this package raises on purpose.

    >>> issubclass(SettingsError, AthinaTraceError) and issubclass(OutboxError, AthinaTraceError)
    True
    """


class SettingsError(AthinaTraceError, ValueError):
    """A setting has a value that its rule forbids; the message names the setting, the value and the rule.

    >>> try:
    ...     configure(connections=0)
    ... except SettingsError as error:
    ...     print(error)
    connections=0: input should be greater than or equal to 1
    """


class OutboxError(AthinaTraceError, OSError):
    """The outbox could not commit an entry or open its files.

    >>> issubclass(OutboxError, OSError)
    True
    """


class OutboxFullError(OutboxError):
    """The outbox holds `max_outbox_bytes`; the entry was not taken.

    >>> issubclass(OutboxFullError, OutboxError)
    True
    """
