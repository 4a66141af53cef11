"""Where an engine delivers to, in the words of its messages."""

from __future__ import annotations

from typing import Final, NamedTuple


class Destination(NamedTuple):
    """What delivers is named after: Athina, or what takes logs on the way to it.

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


ATHINA: Final = Destination("Athina", "the API key", "ATHINA_API_KEY", "ATHINA_BASE_URL")
