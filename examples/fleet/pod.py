"""One pod: answers whichever conversation is free, and hands it over once the log is in the stream.

python pod.py CONVERSATIONS BOOK NAME SEED, with ATHINA_RELAY and ATHINA_OUTBOX in the environment

A conversation is a file with the number of its last turn, locked while a pod answers; what a killed pod had locked is
free. The book says which logs were made, and which conversations were handed over, to be checked afterwards.
"""

import fcntl
import os
import random
import sys
from contextlib import suppress
from pathlib import Path

from athina_trace import athina_trace, current_log, flush

references: list[str] = []


@athina_trace
def answer(session_id: str, question: str) -> str:
    """Stand in for a model."""
    references.append(str(current_log().external_reference_id))
    return f"Your parcel reaches you tomorrow. (You asked in {session_id}: {question})"


def take_turn(conversation: Path, book: int, name: str) -> None:
    """Answer one question of a conversation, unless another pod does so just now."""
    with conversation.open("r+") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        turn = int(file.read() or 0) + 1
        answer(conversation.name, f"Question {turn}?")
        reference = references.pop()
        os.write(book, f"made {name} {conversation.name} {reference}\n".encode())
        # In the stream, before another pod may answer: so the turns of a conversation are in order across pods.
        while not flush(timeout=2):
            pass
        os.write(book, f"stored {name} {conversation.name} {reference}\n".encode())
        file.seek(0)
        file.write(str(turn))


def main() -> None:
    """Answer until killed."""
    folder, path, name, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    book = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    chance = random.Random(seed)  # noqa: S311 - which conversation is next is no secret
    conversations = sorted(folder.iterdir())
    while True:
        take_turn(chance.choice(conversations), book, name)


if __name__ == "__main__":
    main()
