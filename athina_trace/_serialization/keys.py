"""Masks the API keys of well-known services, which can be recognised by their form anywhere in a text.

No prose, identifier, hash or file name has one of these forms. `without_keys` and `may_hold_keys` take time linear in
the text: no key can begin inside another one, so no part of a text is read twice.
"""

import re
from functools import cache
from typing import Final, NamedTuple

KEY: Final = "[key]"
"""Logged in place of a key, as by the masker `key`."""

_MIXED: Final = r"(?=[\w-]{0,99}[A-Z])(?=[\w-]{0,99}[a-z])"
_KEYS: Final = (
    # OpenAI, Anthropic, OpenRouter, Langfuse, and what is like OpenAI's: one word with a digit, or one of both cases,
    # which sets it apart from names of styles (`sk-toggleable__label-arrow`).
    r"sk-(?:proj|svcacct|admin|ant-[a-z]{2,9}\d\d|or-v\d|lf)-[\w-]{20,}",
    rf"sk-(?=[A-Za-z_-]{{0,60}}\d)(?:[A-Za-z0-9]{{20,}}(?![\w-])|{_MIXED}[\w-]{{20,}})",
    r"gsk_[A-Za-z0-9]{40,}|hf_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{36,}|xai-[A-Za-z0-9]{60,}|pplx-[A-Za-z0-9]{40,}",
    r"nvapi-[\w-]{60,}|lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}|tvly-(?:dev-|prod-)?[A-Za-z0-9]{24,}",
    r"gh[opsur]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|glpat-[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,}",
    r"xox[abeoprs]-(?=[A-Za-z-]{0,20}\d)[\w-]{20,}|xapp-\d-[\w-]{20,}",  # Slack
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}=*",  # Stripe
    r"AKIA[A-Z0-9]{16}(?![\w-])",  # AWS
    r"AIza[\w-]{35}(?![\w-])|GOCSPX-[\w-]{28}(?![\w-])",  # Google
    r"pcsk_[A-Za-z0-9]{4,8}_[A-Za-z0-9]{40,}|jina_[0-9a-f]{32}[\w-]{10,}|tgp_v1_[\w-]{40,}",  # Pinecone, Jina, Together
    r"sk_[0-9a-f]{48}(?![\w-])|csk-[a-z0-9]{48}(?![\w-])",  # ElevenLabs, Cerebras
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|do[opr]_v1_[0-9a-f]{64}|ntn_[A-Za-z0-9]{40,}",  # Shopify, DigitalOcean, Notion
    r"[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{26}(?![\w-])",  # Azure
    r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}",  # a JSON Web Token, signed
    # In base64 once more, as in configurations of Kubernetes: `-----BEGIN ` and a private key of any kind.
    r"LS0tLS1CRUdJTiB(?:QUkl|SU0EgUFJJ|FQyBQUkl|PUEVOU1NI|FTkNSWVBU|EU0EgUFJJ)[A-Za-z0-9+/]{16,}=*",
)


class _Forms(NamedTuple):
    """What is found behind the one character that each key has, and what a whole key is.

    Two characters that begin a pattern are looked for much more quickly than one and what is before it.
    """

    hyphen: re.Pattern[str]
    underscore: re.Pattern[str]
    k: re.Pattern[str]
    z: re.Pattern[str]
    j: re.Pattern[str]
    key: re.Pattern[str]


@cache
def _forms() -> _Forms:
    """Compile the patterns on first use: not every program has such texts."""
    return _Forms(
        # The two characters before, which are checked first, are rarely these.
        re.compile(
            r"-(?<=[alpsxP][abeikoprstxyX]-)"
            r"(?:(?<=sk-)(?:(?<![A-Za-z]sk-)|(?<=csk-)|(?<=\\.sk-)|(?<=%..sk-))|(?<=xox.-)|(?<=xai-)"
            r"|(?<=(?:xapp|tvly|pplx|pypi)-)|(?<=(?:glpat|nvapi)-)|(?<=GOCSPX-))"
        ),
        re.compile(
            r"_(?<=[aehnprstv][acfkmnoprstu128]_)(?:(?<=gh._)|(?<=[rs]k_|hf_|r8_|tn_)|(?<=npm_|_v1_)"
            r"|(?<=lsv2_|_pat_|jina_)|(?<=shp.._)|(?<=whsec_))"
        ),
        re.compile(r"KIA(?<=AKIA)"),
        re.compile(r"za(?<=AIza)"),
        re.compile(r"J(?:(?<=eyJ)|QQJ99|(?<=CRUdJ))"),
        # In JSON, a newline is a backslash and a letter; in URLs, special characters are two digits.
        re.compile(rf"(?:(?<![\w-])|(?<=\\[nrt])|(?<=%[0-9A-F][0-9A-F]))(?:{'|'.join(_KEYS)})", re.ASCII),
    )


def may_hold_keys(text: str) -> bool:
    """Return whether `without_keys` may find a key."""
    forms = _forms()
    # Searching for one character is twenty times as fast as for two.
    return (
        ("-" in text and forms.hyphen.search(text) is not None)
        or ("_" in text and forms.underscore.search(text) is not None)
        or ("K" in text and forms.k.search(text) is not None)
        or ("z" in text and forms.z.search(text) is not None)
        or ("J" in text and forms.j.search(text) is not None)
    )


def without_keys(text: str) -> str:
    """Mask keys of well-known services and signed JSON Web Tokens."""
    return _forms().key.sub(KEY, text)
