"""The destination of an engine, as its messages name it."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from athina_trace import _guard


class Destination(NamedTuple):
    """Where logs are delivered: to Athina, or to a relay's stream.

    Attributes:
        name: the destination's name.
        credentials: how messages name its credentials, such as "the API key".
        credentials_setting: the variable that holds them.
        address_setting: the variable that holds its address.
    """

    name: str
    credentials: str
    credentials_setting: str
    address_setting: str

    def warn(self, *, paused: str | None, outage: str | None) -> None:
        """If nothing is sent now, log why and what helps, at most once a minute."""
        if paused is not None:
            _guard.log_throttled(
                logging.WARNING,
                f"paused {self.name}",
                "%s, or a proxy in front of it, refused %s (%s): nothing is sent, and all logs are kept; check %s",
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
