"""Which names look as if they hold a secret, and the credentials inside texts."""

import re
from functools import lru_cache
from typing import Final

MASKED: Final = "[masked]"
"""What is logged in place of a secret."""

_LONGEST_NAME: Final = 128
_MOST_SPACES: Final = 3
"""What has more of them is prose: a question about a password is none."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")

# Matched against the words of a name in lower case, each between underscores: "X-API-Key" is "_x_api_key_".
_SECRET = re.compile(
    r"password|passwd|passphrase|passcode|credential"
    r"|_(?:pwd|secrets?|authorization|cookies?|bearer|jwt|otp|ssn|cvv|dsn)_"
    r"|_(?:db|database|postgres|pg|mysql|mongo|redis|amqp|smtp|mail|ftp|ssh|root|admin|user|proxy)_?pass_"
    r"|(?:api|access|private|secret|signing|encryption|subscription|account|master|ssh|auth|hmac|license|webhook)_?key_"
    r"|_(?:openai|anthropic|azure|gemini|google|cohere|mistral|groq|hf|stripe|twilio|sendgrid|aws)_?key_"
    r"|client_?secret|conn(?:ection)?_?str(?:ing)?_|card_number_|social_security|_creds_|_auth_header_"
    r"|_(?:mfa|otp|2fa|access|verification|recovery|backup)_codes?_"
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
    if name.count(" ") > _MOST_SPACES:
        return False
    words = "_".join(["", *_WORD.findall(_CAMEL.sub("_", name).lower()), ""])
    return _SECRET.search(words) is not None and _COUNTED.search(words) is None


# Each part of a URL is read once, up to the next slash or space: the time is linear in the text. A password may hold
# "@" unescaped, as in database URLs that people write by hand. Twenty characters without a colon are a token.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/?#:@\"'<>]*:[^\s/?#\"'<>]+|[^\s/?#:@\"'<>]{20,})(?=@)")
_QUERY = re.compile(r"(?<=[?&#])([\w.%-]{1,64})=([^\s&#\"'<>]+)")
_SIGNATURES: Final = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature"})
"""Parameters that make a URL one that gives access."""
# A name and a text in JSON, or in Python's own spelling; within a text of JSON, quotation marks have backslashes, and
# within that each of these has one more. What ends a text has none before it, but for pairs that are backslashes.
_NAMED = re.compile(
    r"""(?<!\\)(\\{0,15})(["'])([\w.-]{1,64})\1\2(\s*:\s*)\1\2(.*?(?<!\\)(?:\\\\\1\1)*)(\1\2|\\{0,31}\Z)""", re.DOTALL
)
_SCHEME = re.compile(r"\b(bearer|basic) +(?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*", re.IGNORECASE)


def may_hold_credentials(text: str) -> bool:
    """Whether `without_credentials` may find something: this is asked of every string."""
    return ":" in text and ("://" in text or '":' in text or "':" in text or "earer " in text or "asic " in text)


def without_credentials(text: str) -> str:
    """Mask what gives access in a text: in URLs, under names in JSON, and behind `Bearer` or `Basic`.

    `postgres://app:hunter2@db/prod` becomes `postgres://[masked]@db/prod`; `?token=…` and `"password": "…"` keep their
    names, as a header of authorization keeps its scheme.
    """
    if not may_hold_credentials(text):
        return text
    if "://" in text:
        if "@" in text:
            text = _USERINFO.sub(MASKED, text)
        if "=" in text:
            text = _QUERY.sub(_masked_parameter, text)
    if '":' in text or "':" in text:
        text = _NAMED.sub(_masked_text, text)
    return _SCHEME.sub(rf"\1 {MASKED}", text) if "earer " in text or "asic " in text else text


def _masked_parameter(found: re.Match[str]) -> str:
    hidden = looks_secret(found[1]) or found[1].lower() in _SIGNATURES
    return f"{found[1]}={MASKED}" if hidden else found[0]


def _masked_text(found: re.Match[str]) -> str:
    escape, mark, name, colon, value, end = found.groups()
    quote = escape + mark
    masked = MASKED if value and looks_secret(name) else _NAMED.sub(_masked_text, value)
    return f"{quote}{name}{quote}{colon}{quote}{masked}{end}"
