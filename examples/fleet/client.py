"""A program without athina_trace: it logs to the gateway by Athina's own API, as one in another language does.

python client.py GATEWAY BOOK NAME

The book says which logs the gateway has answered: those must arrive, even if it is killed the moment after.
"""

import json
import os
import sys
import time
import uuid
from http.client import HTTPException
from itertools import count
from urllib.error import HTTPError
from urllib.request import Request, urlopen

CONVERSATIONS = 8
_PAUSE_SECONDS = 0.1
_NOT_KEPT = (408, 429, 503)
"""Status of an answer after which a client sends the same log again."""


def log(gateway: str, fields: dict[str, str]) -> None:
    """Send a log until it is answered. One without an answer may be there already: it keeps its reference."""
    request = Request(  # noqa: S310 - our own server
        f"{gateway}/api/v1/log/inference", json.dumps(fields).encode(), {"athina-api-key": "any"}
    )
    while True:
        try:
            with urlopen(request, timeout=5) as answer:  # noqa: S310
                answer.read()
                return
        except HTTPError as error:
            if error.code not in _NOT_KEPT:
                raise
        except (OSError, HTTPException):
            pass  # the gateway is killed, stopped, or not there yet
        time.sleep(_PAUSE_SECONDS)


def main() -> None:
    """Log until killed."""
    gateway, path, name = sys.argv[1:4]
    book = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for turn in count():
        conversation, reference = f"{name}-{turn % CONVERSATIONS}", str(uuid.uuid4())
        log(
            gateway,
            {
                "language_model_id": "stand-in",
                "session_id": conversation,
                "external_reference_id": reference,
                "prompt": f"Question {turn}?",
                "user_query": f"Question {turn}?",
                "response": "Your parcel reaches you tomorrow.",
            },
        )
        os.write(book, f"made {name} {conversation} {reference}\n".encode())
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
