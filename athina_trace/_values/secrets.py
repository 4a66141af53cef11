"""Which names look as if a secret stood behind them."""

import re
from functools import lru_cache
from typing import Final

MASKED: Final = "[masked]"
"""What stands in a log in place of a secret."""

_LONGEST_NAME: Final = 128
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")

# Matched against the words of a name in lower case, each between underscores: "X-API-Key" is "_x_api_key_".
_SECRET = re.compile(
    r"password|passwd|passphrase|passcode|credential"
    r"|_(?:pwd|secrets?|authorization|cookies?|bearer|jwt|otp|ssn|cvv)_"
    r"|(?:api|access|private|secret|signing|encryption|subscription|account|master|ssh)_?key_"
    r"|client_?secret|connection_?string_|card_number_|social_security"
    r"|(?:access|auth|refresh|bearer|session)_?token_"
    r"|_token_$|^_(?:basic_|proxy_)?auth_$"
)
# A language model's tokens, and the marks by which lists are paged, are no secrets.
_COUNTED = re.compile(
    r"_(?:max|min|first|last|per|prompt|completion|input|output|total|cached|reasoning"
    r"|bos|eos|pad|unk|sep|cls|mask|start|end|stop|special|new|next|prev|page|continuation)_token_$"
)


def looks_secret(name: str) -> bool:
    """Whether a parameter, field or key of this name is likely to hold a secret.

    Words are told apart by case and by anything that is no letter or digit: `apiKey`, `X-API-Key` and
    `OPENAI_API_KEY` are one. `token` is a secret, `tokens`, `max_tokens` and `token_count` are not.
    Only the first 128 characters of the name are read.
    """
    return _looks_secret(name[:_LONGEST_NAME])


@lru_cache(maxsize=4096)
def _looks_secret(name: str) -> bool:
    words = "_".join(["", *_WORD.findall(_CAMEL.sub("_", name).lower()), ""])
    return _SECRET.search(words) is not None and _COUNTED.search(words) is None
