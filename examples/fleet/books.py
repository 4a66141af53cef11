"""What pods wrote down, compared with what arrived."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

GATEWAY_CLIENT = "client"
"""The name in the book of the one that logs through the gateway."""


@dataclass
class Books:
    """What a fleet came to.

    Attributes:
        made: logs whose call returned, or which the gateway answered.
        through_gateway: how many of them the gateway answered.
        arrived: logs that Athina has.
        lost: those that it lacks although the disk of their pod survived, or the stream had stored them.
        lost_with_disks: those that only a deleted disk held.
        out_of_order: logs that arrived behind a later one of their conversation.
        copies: how often Athina was given a log again.
    """

    made: int
    through_gateway: int
    arrived: int
    lost: int
    lost_with_disks: int
    out_of_order: int
    copies: int

    def __str__(self) -> str:
        return "\n".join(f"{each.name.replace('_', ' '):>16} {getattr(self, each.name):>8,}" for each in fields(self))


def check(book: Path, arrived: Sequence[str], deleted: Iterable[str]) -> Books:
    """Compare the book with the references that arrived, in order; `deleted` are the pods whose disk is gone."""
    gone = set(deleted)
    made: list[tuple[str, str, str]] = []
    stored: list[tuple[str, str, str]] = []
    for line in book.read_text().splitlines():
        event, *rest = line.split(" ")
        pod, conversation, reference = rest
        (made if event == "made" else stored).append((pod, conversation, reference))
    place = {reference: number for number, reference in reversed(list(enumerate(arrived)))}
    safe = {reference for pod, _, reference in made if pod not in gone} | {reference for *_, reference in stored}
    handed_over: dict[str, list[str]] = defaultdict(list)
    own: dict[tuple[str, str], list[str]] = defaultdict(list)
    for _, conversation, reference in stored:
        handed_over[conversation].append(reference)
    for pod, conversation, reference in made:
        own[pod, conversation].append(reference)
    wrong = set()
    for ordered in (*handed_over.values(), *own.values()):
        newest = -1
        for reference in ordered:
            if place.get(reference, newest) < newest:
                wrong.add(reference)
            newest = max(newest, place.get(reference, -1))
    return Books(
        made=len(made),
        through_gateway=sum(pod == GATEWAY_CLIENT for pod, *_ in made),
        arrived=len(place),
        lost=len(safe - place.keys()),
        lost_with_disks=len({reference for *_, reference in made} - safe - place.keys()),
        out_of_order=len(wrong),
        copies=sum(Counter(arrived).values()) - len(place),
    )
