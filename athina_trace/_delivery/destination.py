"""Where an engine delivers to, in the words of its messages."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from athina_trace import _guard


class Destination(NamedTuple):
    """Where logs are delivered to: Athina, or what takes them on the way to it.

    Attributes:
        name: of the destination.
        credentials: what it may refuse.
        credentials_setting: the variable that holds them.
        address_setting: the variable that says where it is.
    """

    name: str
    credentials: str
    credentials_setting: str
    address_setting: str

    def warn(self, *, paused: str | None, outage: str | None) -> None:
        """Log, once a minute, why nothing is sent now, if so, and what helps."""
        if paused is not None:
            _guard.log_throttled(
                logging.WARNING,
                f"paused {self.name}",
                "%s, or a proxy before it, refused %s (%s): nothing is sent and everything is kept; check %s",
                self.name,
                self.credentials,
                paused,
                self.credentials_setting,
            )
        elif outage is not None:
            _guard.log_throttled(
                logging.WARNING,
                f"outage {self.name}",
                "%s: logs are kept and tried again; check %s and the network if this lasts",
                outage,
                self.address_setting,
            )


ATHINA: Final = Destination("Athina", "the API key", "ATHINA_API_KEY", "ATHINA_BASE_URL")
