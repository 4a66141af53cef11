"""Which names look as if they hold a secret, and the credentials inside URLs."""

import re
from functools import lru_cache
from typing import Final

MASKED: Final = "[masked]"
"""What is logged in place of a secret."""

_LONGEST_NAME: Final = 128
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")

# Matched against the words of a name in lower case, each between underscores: "X-API-Key" is "_x_api_key_".
_SECRET = re.compile(
    r"password|passwd|passphrase|passcode|credential"
    r"|_(?:pwd|secrets?|authorization|cookies?|bearer|jwt|otp|ssn|cvv|dsn)_"
    r"|_(?:db|database|postgres|pg|mysql|mongo|redis|amqp|smtp|mail|ftp|ssh|root|admin|user|proxy)_?pass_"
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

    Words are separated by case and by anything that is no letter or digit: `apiKey`, `X-API-Key` and
    `OPENAI_API_KEY` are one. `token` is a secret, `tokens`, `max_tokens` and `token_count` are not.
    Only the first 128 characters of the name are read.
    """
    return _looks_secret(name[:_LONGEST_NAME])  # cut before it is cached, so that the cache stays small


@lru_cache(maxsize=4096)
def _looks_secret(name: str) -> bool:
    words = "_".join(["", *_WORD.findall(_CAMEL.sub("_", name).lower()), ""])
    return _SECRET.search(words) is not None and _COUNTED.search(words) is None


# Each part of a URL is read once, up to the next slash or space: the time is linear in the text. A password may hold
# "@" unescaped, as in database URLs that people write by hand. Twenty characters without a colon are a token.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/?#:@\"'<>]*:[^\s/?#\"'<>]+|[^\s/?#:@\"'<>]{20,})(?=@)")
_QUERY = re.compile(r"(?<=[?&])([\w.%-]{1,64})=([^\s&#\"'<>]+)")


def without_credentials(text: str) -> str:
    """Mask what gives access in the URLs of a text: user and password, a token in their place, secret parameters.

    `postgres://app:hunter2@db/prod` becomes `postgres://[masked]@db/prod`; `?token=…` keeps its name.
    """
    if "://" not in text:
        return text
    if "@" in text:
        text = _USERINFO.sub(MASKED, text)
    if "=" not in text:
        return text
    return _QUERY.sub(lambda found: f"{found[1]}={MASKED}" if looks_secret(found[1]) else found[0], text)
