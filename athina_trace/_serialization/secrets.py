"""Recognises secrets: names that look secret, and credentials inside texts."""

import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Final, NamedTuple

from athina_trace._serialization.keys import may_hold_keys, without_keys

SHORTEST: Final = 20
"""Minimum length of a text that may contain a credential without a name: the shortest key."""

MASKED: Final = "[masked]"
"""Logged instead of a secret."""

_LONGEST_NAME: Final = 128
_MOST_SPACES: Final = 3
"""A name with more spaces is prose: a question about a password is not a secret."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")

# Matched against the words of a name in lower case, between underscores: "X-API-Key" is "_x_api_key_".
_SECRET = re.compile(
    r"password|passwd|passphrase|passcode|passwort|kennwort|wachtwoord|contrase_?n?a|mot_?de_?passe|_senha_|credential"
    r"|_(?:pwd|secrets?|authorization|cookies?|bearer|jwt|otp|ssn|cvv|cvc|dsn)_"
    r"|_(?:db|database|postgres|pg|mysql|mongo|redis|amqp|smtp|mail|ftp|ssh|root|admin|user|proxy|http|become)_?pass_"
    r"|(?:api|access|private|secret|signing|encryption|subscription|account|master|ssh|auth|hmac|license|webhook)_?keys?\d{0,2}_"
    r"|_(?:openai|anthropic|azure|gemini|google|cohere|mistral|groq|hf|stripe|twilio|sendgrid|aws)_?key_"
    r"|client_?secret|conn(?:ection)?_?str(?:ing)?_|card_number_|social_security|_creds_|_auth_header_"
    r"|_(?:mfa|otp|2fa|access|verification|recovery|backup)_codes?_"
    r"|(?:access|auth|refresh|bearer|session)_?token_|(?:access|auth|refresh|bearer|api|bot)_?tokens_"
    r"|token_$|^_(?:basic_|proxy_)?auth_$"
)
# A language model's tokens, pagination tokens and facts about a secret are not secrets.
_NOT_SECRET = re.compile(
    r"_(?:max|min|first|last|per|prompt|completion|input|output|total|cached|reasoning|sub"
    r"|bos|eos|pad|unk|sep|cls|mask|start|end|stop|special|new|next|prev|page|continuation)_?token_$"
    r"|_(?:policy|strength|length|type|count|label|reset|changed|required|enabled|expired|expiry|santa)_$"
)


def looks_secret(name: str) -> bool:
    """Return whether a parameter, field or key with this name probably holds a secret.

    Words are separated by case and by anything that is not a letter or digit: `apiKey`, `X-API-Key` and
    `OPENAI_API_KEY` look secret. So does `token`, but not `tokens`, `max_tokens` and `token_count`.
    Only the first 128 characters of the name are read.
    """
    return _looks_secret(name[:_LONGEST_NAME])  # cut before it is cached, so that the cache stays small


@lru_cache(maxsize=4096)
def _looks_secret(name: str) -> bool:
    if name.count(" ") > _MOST_SPACES:
        return False
    words = "_".join(["", *_WORD.findall(_CAMEL.sub("_", name).lower()), ""])
    return _SECRET.search(words) is not None and _NOT_SECRET.search(words) is None


# Each part of a URL is read once, up to the next slash or space, so that the time is linear in the text. A password may
# contain an unescaped "@", as in handwritten database URLs. Twenty characters without a colon are a token.
_USERINFO = re.compile(r"://(?:[^\s/?#:@\"'<>]*:[^\s/?#\"'<>]+|[^\s/?#:@\"'<>]{20,})(?=@)")
_QUERY = re.compile(r"([?&#])([\w.%-]{1,64})=([^\s&#\"'<>]+)")
_KEY = re.compile(r"(?=[^\d]*\d)(?=[^A-Za-z]*[A-Za-z])[\w-]{20,}")
"""A secret in a parameter named `key`: keys of tables and caches are usually shorter, or words."""
_RELATIVE = re.compile(r"\?[\w.%-]{1,64}=")
_SIGNATURES: Final = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature"})
"""Parameters that make the URL itself a credential."""
_WEBHOOK = re.compile(
    r"(://(?:hooks\.slack\.com/[a-z]{1,20}/|(?:\w{1,20}\.)?discord(?:app)?\.com/api/webhooks/\d{1,30}/))[\w/-]+"
    r"|(://api\.telegram\.org/bot\d{1,20}:)[\w-]+"
)
"""URLs to which anyone who knows them can post."""
_NAMING: Final = frozenset({"name", "key", "id"})
_NAMED_BY: Final = frozenset({"value", "content"})
"""Attributes of XML and HTML with a value whose name is in another attribute, one of `_NAMING`."""
_LOGIN = re.compile(
    r"""((?: (?:-u[ =]?|--user[ =])["']?|["'](?:-u|--user)\\{0,7}["'],[ \n]{0,40}\\{0,7}["']|["']--user=)"""
    r"""[^\s:"'\\]{1,64}:)(?!https?:)[^\s"'\\]+"""
)
"""Logins of curl: on a command line, or in a list of arguments in JSON or Python. A URL follows `-url:`."""
# A name and a string in JSON or Python. Inside a JSON string, quotation marks have backslashes, and on each further
# level more of them. The closing mark has no backslashes beyond these, except pairs, which are escaped backslashes.
# Python puts a string with an apostrophe between other marks than the name, and a `b` before bytes.
_NAMED = re.compile(
    r"""(?<!\\)(\\{0,15})(["'])([\w.-]{1,64})\1\2(\s*:\s*b?)\1(["'])(.*?(?<!\\)(?:\\\\\1\1)*)(\1\5|\\{0,31}\Z)""",
    re.DOTALL,
)
_PAIRED = re.compile(
    r"""((?<!\\)(\\{0,15})(["'])(?:name|key|header)\2\3\s*:\s*\2\3([\w.-]{1,64})\2\3\s*,\s*\2\3value\2\3\s*:\s*)"""
    r"""\2\3.*?(?<!\\)(?:\\\\\2\2)*(\2\3|\\{0,31}\Z)""",
    re.DOTALL | re.IGNORECASE,
)
"""Lists of headers and variables: objects with a name and a value."""
_PAIRED_LINES = re.compile(
    r"""(name:[ \t]{1,9}(\\{0,7}["']|)([\w.-]{1,64})\2[ \t]{0,9}(?:\r?\n|\\{1,7}n)[ \t]{1,99}value:[ \t]{1,9})"""
    r"""(?!\\{0,7}["']?(?:(?i:true|false|null|~)(?![^\s"'\\])|[$<{/]))"""
    r"""(\\{0,7}"[^"\\\n]{1,2000}\\{0,7}"|\\{0,7}'[^'\\\n]{1,2000}\\{0,7}'"""
    r"""|(?:(?:Bearer|Basic|Token) )?[^\s"'\\\[\]{}|>&*!#][^\s"'\\\[\]{}]{0,2000}"""
    r"""(?=[ \t]{0,9}(?:[\r\n\\"]|\Z)|[ \t]#))"""
)
"""The same in YAML, as in the environment of a container: a word or a string, not a reference, template or path."""
_SCHEME = re.compile(r"\b(bearer|basic) +(?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*", re.IGNORECASE)
# After its first line and any headers, a key has letters without a space, unlike prose about keys. If its end was cut
# off, it extends to the end of the text.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?=(?:\s|\\{1,7}[rn]){0,9}(?:[A-Za-z-]{1,20}: [^\n\\]{0,100}(?:\n|\\{1,7}[rn]){1,9}){0,4}[A-Za-z0-9+/]{24})"
    r".*?(?:-----END [A-Z0-9 ]{0,40}KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# Endings of most names that look secret. The sign after a name is searched for first, which is fastest, and then the
# name's last letters, which are rare in prose and code.
_ENDS: Final = (
    r"(?:(?<=(?:ord|swd|[Pp]wd|ret|ets|[Kk]ey|eys|ken|kie|ORD|SWD|PWD|RET|ETS|KEY|EYS|KEN|KIE)~)"
    r"|(?<=(?:rase|tial|ials|wort|pass|RASE|PASS)~)|(?<=(?:ization|IZATION)~))"
)
_LAST: Final = "".join(sorted(set(re.findall(r"([A-Za-z])[|)]", _ENDS))))
"""The last letters of these names, checked first: a colon after a digit, as in a time, is skipped at once."""
_SIGN = re.compile(
    rf""":(?:(?=[/ "'b][/"'abe])(?=//| ?["']?b(?:earer|asic) )|(?<=["'{_LAST}]:)(?:(?<=["']:)|"""
    + _ENDS.replace("~", ":")
    + "|(?<=value:)))"
)
"""A colon that may have a credential beside it: in a URL, before `bearer` or `basic`, after a quote or an ending."""
_QUOTED = re.compile(r""":(?<=["']:)""")
_MARK: Final = r"""\\{0,7}["']"""
"""A quotation mark; inside a JSON string it has backslashes."""
SCHEMA: Final = frozenset(
    {
        *("type", "title", "description", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"),
        *("anyOf", "oneOf", "allOf", "$ref", "items", "properties", "required", "additionalProperties", "minItems"),
        *("maxItems", "readOnly", "writeOnly", "deprecated", "nullable"),
    }
)
"""Keywords of JSON Schema, which describe a value and never contain one."""
_SCHEMA_WORDS: Final = "|".join(sorted(map(re.escape, SCHEMA)))
# A possible secret, quoted or a single word, has a letter and a digit, and no space. That excludes prose, and all code
# except literals.
_RANDOM: Final = r"""(?=[^\s"'\d]{0,100}\d)(?=[^\s"'A-Za-z]{0,100}[A-Za-z])"""
_LITERAL: Final = rf"""\\{{0,7}}(?:"{_RANDOM}[^\s"']{{7,500}}"|'{_RANDOM}[^\s"']{{7,500}}')"""


class _BehindColons(NamedTuple):
    """The patterns for secrets after a name and a colon."""

    colon: re.Pattern[str]
    value: re.Pattern[str]
    header: re.Pattern[str]
    inside: re.Pattern[str]
    """A JSON list or object that contains no other one."""
    schema: re.Pattern[str]
    """An object that declares the type of a value, as in tool definitions."""
    cookies: re.Pattern[str]


@cache
def _behind_colons() -> _BehindColons:
    """Compile the patterns on first use: not every program has such texts."""
    quoted = "|".join(_ENDS.replace("~", quote) for quote in ("[\"']:", "\\\\[\"']:"))
    word = rf"""{_RANDOM}[\w+/=.~!@#%^&*-]{{8,500}}(?=[\s,;'"\\]|\Z)"""
    parameter = r"""\w{1,20}=(?:\\{0,7}"[^"\\\r\n]{0,500}\\{0,7}"|[\w.-]{1,64})"""
    scheme, token = r"(?:[A-Za-z][\w-]{0,30} )?", rf"""{_RANDOM}[^\s"'\\,;<>{{}}$]{{6,500}}"""
    return _BehindColons(
        re.compile(rf""":(?:(?<=["']:)(?=[ \t]?[\[{{])(?:{quoted})|(?<=[A-Za-z]:){_ENDS.replace("~", ":")})"""),
        re.compile(rf"""[ \t]?({_LITERAL}|\[[^\[\]{{}}\n]{{8,500}}\]|{word})"""),
        re.compile(
            rf"""[ \t]?{scheme}({token}(?:, ?\w+=[^\s,"']+)*"""
            rf"""|(?<=[Dd]igest ){parameter}(?:, ?{parameter}){{1,15}})"""
        ),
        re.compile(r"""[ \t]?((?:\[[^\[\]{}]{1,2000}\]|{[^\[\]{}]{1,2000}}))"""),
        re.compile(
            rf"""{{(?=.*{_MARK}type{_MARK}\s*:)(?:\s*{_MARK}(?:{_SCHEMA_WORDS}){_MARK}\s*:\s*"""
            r"""(?:\\{0,7}"[^"\\]*\\{0,7}"|\\{0,7}'[^'\\]*\\{0,7}'|[\w.]+)\s*(?:,|(?=})))+}""",
            re.DOTALL,
        ),
        re.compile(r"""[ \t]?([\w.$-]{1,64}=[^\r\n"'\\]{1,4000})"""),
    )


_COOKIE = re.compile(r"=[^;\s]+")
# The value after an equals sign without spaces, which follows a name of three characters or more; after one with
# spaces, only a literal. Quoted and braced values are bounded: each that is never closed would be read to the end of
# the text. A dollar refers to a variable. Words with commas between them are a list, unless one is a name, too.
_ASSIGNED = re.compile(
    r"=(?:(?<=[\w-]{2}\w=)(?:(?<=[A-Z\d_]=)|" + _ENDS.replace("~", "=") + ")"
    r"""('[^'\n]{0,500}'|"[^"\n]{0,500}"|{[^}\n]{0,500}}"""
    r"""|\\{1,7}"[^"\n]{0,500}"|(?:(?:Bearer|Basic|Token) (?=[\w.~+/-]{8}))?"""
    r"""[^\s=;,&'"(){}<>\[\]$?*\\][^\s;,&'"(){}<>\[\]]*(?:,[^\s=;,&'"(){}<>\[\]]+(?=[\s,;&'"]|\Z))*)"""
    + r"""| (?=["'\\\w])"""
    + _ENDS.replace("~", " = ")
    + rf"({_LITERAL}|{_RANDOM}[\w+/=.~!@#%^&*-]{{8,500}}(?=[\s\"\\\\]|\Z)))"
)
_ARROW = re.compile(rf"""(?:=>|(?<=:)=)[ \t]{{0,9}}({_MARK}){_RANDOM}[^\s"'|\\]{{7,500}}(?=\1)""")
"""A literal after `=>`, as in Ruby and PHP, or after `:=`, as in Go. A bar is in rules about a value."""
_ITEM: Final = rf"""(\[({_MARK})([\w.-]{{1,64}})\2\] ?= ?)(?={_LITERAL})({_MARK})[^"']{{1,500}}?(?=\4)"""
"""A literal that becomes an item of a dictionary: `os.environ["API_KEY"] = "…"`."""
_SECTION = re.compile(r"^[ \t]{0,9}\[[\w .:-]{1,64}\][ \t]{0,9}$", re.MULTILINE)
"""The heading of a section in a configuration file, where values need no quotation marks."""
_IDENTIFIER = re.compile(r"(?=\D*\d\d?\D*\Z)(?:[A-Z]{1,4}\d{1,2}|[A-Z]{0,2}[a-z]{2,}\d{0,2})(?:[A-Z][a-z]{2,}\d{0,2})+")
"""A name in code of capitalised words, one of them with a number: `OAuth2TokenProvider`."""
_MIXED = re.compile(r"(?=.{0,100}\d)(?=.{0,100}[a-z])(?=.{0,100}[A-Z])[\w+/=~-]{20,}")
_PLACEHOLDER = re.compile(
    r"""["']?(?:(?i:bearer|basic|token) )?(?:<?(?i:your)(?:[-_ ][A-Za-z]+)+>?|<[A-Za-z][\w -]{0,60}>"""
    r"""|\$[A-Z_][A-Z\d_]*|\${[A-Z_][A-Z\d_]*}|(?:[A-Za-z\d]{1,12}[-_]){0,4}(?:[.*xX]{3,}|…)|)["']?"""
)
"""Placeholders for secrets in examples."""
_IS_LITERAL = re.compile(rf"{_LITERAL}|{_RANDOM}[\w+/=.~-]{{8,500}}")
_NAME_BACKWARDS = re.compile(
    r"[\w-]*[A-Za-z]_{0,2}(?:(?![\w.$-])|(?=--(?:\s|\Z))|(?=(?:\.[\w-]{1,30}){1,6}(?<!\.fles)(?<!\.siht)(?:[\s\"'\\]|\Z)))"
)
"""The name may have dots before it in a properties file, but not as an attribute of an object in code."""
_KEY_IN_WORDS = re.compile(
    r"\b(?:api|access|secret|account|subscription|license|encryption|signing) key\Z", re.IGNORECASE
)
"""Before a colon in a message that a person wrote. Only a key as long as a key of a service is one there."""
_QUOTES = re.compile(r"""["']\\*""")
_MARKS = re.compile(r"""\\*["']""")
_CONNECTION = re.compile(
    r"(?<![\w.-])(?:host|hostaddr|hostname|server|data source|addr|address|database|dbname|initial catalog|driver"
    r"|user|user id|uid|username|endpoint|accountname|sharedaccesskeyname)=",
    re.IGNORECASE,
)


_GAP: Final = r"(?:\s|\\[nrt]){1,9}"
"""Spaces and line breaks, the latter perhaps escaped inside a JSON string."""
_SQL: Final = (
    rf"""((?:\b|(?<=\\[nt]))(?:(?:IDENTIFIED(?:{_GAP}WITH{_GAP}["'`]?\w{{1,64}}["'`]?)?{_GAP}(?:BY|AS)(?:{_GAP}PASSWORD)?"""
    rf"""|PASSWORD|SECRET)(?:{_GAP}|\s?=\s?(?=N')|\s?\()N?'"""
    rf"""|(?i:identified{_GAP}by|password){_GAP}'(?={_RANDOM}[^\s"']{{7}})))"""
    r"""(?!\$\{?\w+\}?'|\{\w*\}'|[%?:])((?:[^'\n]|''){1,500}(?='|\Z))"""
)
"""Literals in SQL, where an apostrophe is doubled. Prose may say that something is identified by a 'word'."""
_WORDS_OF_SQL: Final = ("PASSWORD", "IDENTIFIED", "SECRET", "assword", "dentified")
"""One of them is in each text with such a literal. Few have one, and to search for it takes 50 ns per character."""
_BEFORE_SQL = re.compile(
    r"""'(?:(?<=\s')(?:(?<=\s\s')|(?<=n\s')|(?<=ord.')|(?<=ORD.')|(?<=by.')|(?<=BY.')|(?<=RET.')|(?<= AS.'))"""
    r"""|(?<=\\[nt]'))""",
    re.DOTALL,
)


_LOGS_IN: Final = "docker|podman|buildah|skopeo|nerdctl|helm|oras"
_MONGO: Final = "mongosh|mongodump|mongorestore|mongoexport|mongoimport"
"""`mongo` only with a user: it is also the usual name of a container, beside which `-p` is a port or a project."""
_ATTACHES: Final = "mysql|mysqldump|mysqladmin|mysqlimport|mariadb|mariadb-dump"
_PASSED: Final = frozenset(_ATTACHES.split("|"))
_ASKED: Final = frozenset({"sshpass", "login", *_MONGO.split("|")})
_REQUESTS: Final = frozenset({"curl", "http", "https", "wget"})
_LONGEST_COMMAND: Final = 32
_NAME_AND_PASSWORD = re.compile(r"[^\s:/]{1,64}:\S+")


class Option(NamedTuple):
    """An option in a list of arguments, and what may follow it."""

    shown: str
    hides: Callable[[str], object] | None
    """Returns whether an argument after the option, if it is not an option itself, is a secret."""


def commands(arguments: Iterable[object]) -> set[str]:
    """Return the last parts of the paths in a list, to look up which commands are among them."""
    return {each[-_LONGEST_COMMAND:].rpartition("/")[2] for each in arguments if type(each) is str}


def option(item: str, among: set[str]) -> Option:
    """Return what to log of an option beside these `commands`, and what to hide after it."""
    if item[:2] == "--" and item != "--user":
        return Option(item, bool if looks_secret(item) else None)
    if item in ("-u", "--user") and not among.isdisjoint(_REQUESTS):
        return Option(item, _NAME_AND_PASSWORD.fullmatch)
    if (item == "-p" and not among.isdisjoint(_ASKED)) or (item == "-a" and "redis-cli" in among):
        return Option(item, bool)
    attaches = item[:2] == "-p" and item[2:] and not among.isdisjoint(_PASSED)
    return Option(f"-p{MASKED}" if attaches else item, None)


class _InMarkup(NamedTuple):
    """The patterns for secrets in command lines and XML."""

    dashes: re.Pattern[str]
    option: re.Pattern[str]
    short: re.Pattern[str]
    """`-p` or `-a` with a password, of certain commands; for others it is a port or a path."""
    listed: re.Pattern[str]
    """An option in a list of arguments in JSON or Python."""
    end: re.Pattern[str]
    element: re.Pattern[str]
    tag: re.Pattern[str]
    attribute: re.Pattern[str]


@cache
def _in_markup() -> _InMarkup:
    """Compile the patterns on first use: not every program has such texts."""
    # A reference to a value, or a flag that says whether there is one, is not a secret.
    reference = r"(?![$%{*\[?]|(?:true|false)\b)"
    named_file = r"(?![./~-]|\S{0,200}\.(?:pem|key|pub|crt|json|ya?ml|txt)\b)"
    return _InMarkup(
        re.compile(
            rf"""--(?:---|[A-Za-z][\w-]{{0,62}} {_ENDS.replace("~", " ")}|(?<=["']--)[A-Za-z][\w-]{{0,62}}{_MARK},)"""
        ),
        re.compile(
            rf"""(--([A-Za-z][\w-]{{0,62}}) +)(?:(\\{{0,7}}["']){reference}[^\s"'\\]{{4,500}}\3"""
            rf"""|{reference}{named_file}{_RANDOM}[\w+/=.~!@#%^*-]{{6,500}})"""
        ),
        re.compile(
            rf"""(\b(?:sshpass|(?:{_LOGS_IN})\b[^\n;|&]{{0,30}}? login\b[^\n;|&]{{0,100}}?"""
            rf"""|(?:{_MONGO}|mongo\b[^\n;|&]{{0,100}}? (?:-u|--username))\b[^\n;|&]{{0,100}}?) -p[ =]?"""
            rf"""|\bredis-cli(?: -{{1,2}}[\w-]{{1,20}}(?: [^\s-]\S{{0,100}})?){{0,6}} -a """
            rf"""|\b(?:{_ATTACHES})\b[^\n;|&]{{0,100}}? -p)"""
            rf"""(?:({_MARK}){reference}[^\s"'\\]{{1,500}}\2|{reference}{_RANDOM}[^\s"'\\]{{6,500}})"""
        ),
        re.compile(
            rf"""(--(?<=["']--)([A-Za-z][\w-]{{0,62}})({_MARK}),[ \n]{{0,40}}\3)"""
            rf"""(?!-){reference}[^\n]{{1,500}}?(?<!\\)(?=\3)"""
        ),
        re.compile(">" + _ENDS.replace("~", ">")),
        re.compile(
            rf"(<([\w:.-]{{1,64}})(?:\s[^<>]{{0,500}})?>\s{{0,100}}){reference}"
            r"(?:<!\[CDATA\[[^\]]{1,2000}\]\]>|[^<>\s]{1,2000})(\s{0,100}</\2\s{0,9}>)"
        ),
        re.compile(r"<[A-Za-z][\w:.-]{0,63}\s[^<>]{3,4000}>"),
        re.compile(rf"""([\w:.-]{{1,64}})(\s?=\s?({_MARK})){reference}([^\s"'<>]{{1,2000}}?)(?=\3)"""),
    )


def may_hold_unnamed(text: str) -> bool:
    """Return whether a text may contain a credential that is not beside a colon or an equals sign.

    Such a text has 20 characters or more, including one of `-_>JKz`, or `'` after a space or line break.
    """
    forms = _in_markup()
    # Searching for one character takes a twentieth of the time that two take.
    return len(text) >= SHORTEST and (
        ("-" in text and (" -p" in text or "redis-cli" in text or forms.dashes.search(text) is not None))
        or ("'" in text and _BEFORE_SQL.search(text) is not None)
        or (">" in text and forms.end.search(text) is not None)
        or may_hold_keys(text)
    )


def may_hold_named(text: str) -> bool:
    """Return whether a text with a colon may contain a credential beside one, or after `Bearer` or `Basic`."""
    return _SIGN.search(text) is not None or ("B" in text and ("Bearer " in text or "Basic " in text))


def may_hold_credentials(text: str) -> bool:
    """Return whether `without_credentials` may find something; called for every string."""
    return "=" in text or may_hold_unnamed(text) or (":" in text and may_hold_named(text))


def without_credentials(text: str) -> str:
    """Mask the credentials in a text.

    It finds them in URLs, under names in JSON and XML, in headers, in connection strings, environments and
    configurations, in command lines, in SQL, in literals of code, after `Bearer` or `Basic`, between the first and last
    line of a private key, and as keys of well-known services.

    `postgres://app:hunter2@db/prod` becomes `postgres://[masked]@db/prod`; `?token=…`, `"password": "…"`,
    `host=db password=…`, `API_KEY=…` and `X-Api-Key: …` keep their names, and an `Authorization` header also keeps
    its scheme.
    """
    if not may_hold_credentials(text):
        return text
    text = _without_those_in_urls(_without_those_in_markup(text))
    if ":" in text:
        if _QUOTED.search(text) is not None:
            text = _NAMED.sub(_masked_text, text)
            if "alue" in text:
                text = _PAIRED.sub(_masked_value, text)
        if "value:" in text:
            text = _PAIRED_LINES.sub(_masked_line, text)
        text = _without_named(text)
    if "=" in text:
        text = _without_assigned(text)
        if "]" in text:
            text = _compiled(_ITEM).sub(_masked_item, text)
        if "=>" in text or ":=" in text:
            text = _without_arrows(text)
    return _without_unnamed(text)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern on first use: not every program has texts for it, and `re` keeps only the newest."""
    return re.compile(pattern)


def _without_those_in_urls(text: str) -> str:
    if "://" in text:
        if "@" in text:
            text = _USERINFO.sub(f"://{MASKED}", text)
        if "curl" in text:
            text = _LOGIN.sub(rf"\1{MASKED}", text)
        if "hook" in text or "/bot" in text:
            text = _WEBHOOK.sub(rf"\1\2{MASKED}", text)
    if "=" in text and ("://" in text or ("?" in text and _RELATIVE.search(text) is not None)):
        text = _QUERY.sub(_masked_parameter, text)
    return text


def _without_unnamed(text: str) -> str:
    if "'" in text and any(word in text for word in _WORDS_OF_SQL):
        text = _compiled(_SQL).sub(_masked_literal, text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(rf"-----BEGIN \1-----{MASKED}", text)
    if "earer " in text or "asic " in text:
        text = _SCHEME.sub(rf"\1 {MASKED}", text)
    return without_keys(text) if may_hold_keys(text) else text


def _without_those_in_markup(text: str) -> str:
    if " -p" in text or "redis-cli" in text:
        text = _in_markup().short.sub(rf"\1\2{MASKED}\2", text)
    if "--" in text:
        text = _in_markup().listed.sub(_masked_in_list, _in_markup().option.sub(_masked_option, text))
    if "<" in text:
        text = _in_markup().element.sub(_masked_element, _in_markup().tag.sub(_masked_tag, text))
    return text


def _masked_option(found: re.Match[str]) -> str:
    option, name, mark = found.groups(default="")
    return f"{option}{mark}{MASKED}{mark}" if looks_secret(name) else found[0]


def _masked_in_list(found: re.Match[str]) -> str:
    return f"{found[1]}{MASKED}" if looks_secret(found[2]) else found[0]


def _masked_element(found: re.Match[str]) -> str:
    begin, name, end = found.groups()
    return f"{begin}{MASKED}{end}" if looks_secret(name) else found[0]


def _masked_tag(found: re.Match[str]) -> str:
    """Mask XML attributes with names that look secret, and values whose name is in another attribute."""
    tag = found[0]
    attributes = _in_markup().attribute
    # The tag's own name may also say that its value is secret.
    named = looks_secret(tag[1:].split(None, 1)[0]) or any(
        each[1] in _NAMING and looks_secret(each[4]) for each in attributes.finditer(tag)
    )

    def masked(each: re.Match[str]) -> str:
        name, sign, _, _ = each.groups()
        is_secret = looks_secret(name) or (named and name in _NAMED_BY)
        return f"{name}{sign}{MASKED}" if is_secret else each[0]

    return attributes.sub(masked, tag)


def _masked_parameter(found: re.Match[str]) -> str:
    sign, name, value = found.groups()
    hidden = looks_secret(name) or name.lower() in _SIGNATURES or (name == "key" and _KEY.fullmatch(value) is not None)
    return f"{sign}{name}={MASKED}" if hidden else found[0]


def _name_before(text: str, end: int) -> str:
    name = _NAME_BACKWARDS.match(text[max(0, end - _LONGEST_NAME) : end][::-1])
    return "" if name is None else name[0][::-1]


def _without_named(text: str) -> str:
    """Mask what follows a name and a colon: in headers, YAML, and objects of code."""
    pieces: list[str] = []
    done = 0
    forms = _behind_colons()
    for found in forms.colon.finditer(text):
        end = found.start()
        quote = _QUOTES.match(text[max(0, end - 16) : end][::-1])
        name = _name_before(text, end if quote is None else end - quote.end())
        is_two_words = quote is None and name.lower() == "key" and _KEY_IN_WORDS.search(text[max(0, end - 24) : end])
        if end < done or not (is_two_words or looks_secret(name)):
            continue
        kind = name.lower()
        is_cookie = kind.endswith("cookie")
        form = forms.cookies if is_cookie else forms.value
        if not is_cookie and ("-" in name or kind == "authorization"):
            form = forms.header
        value = (form if quote is None else forms.inside).match(text, found.end())
        if value is None or (quote is not None and forms.schema.fullmatch(value[1])):
            continue
        if is_two_words and (len(value[1]) < SHORTEST or value[1][0] == "["):  # a link in Markdown
            continue
        # People choose passwords, but not tokens.
        if quote is None and kind.endswith("token") and _IDENTIFIER.fullmatch(value[1]):
            continue
        if quote is not None:
            masked = f"{quote[0][::-1]}{MASKED}{quote[0][::-1]}"
        elif is_cookie:  # the attributes of a `Set-Cookie` are kept
            masked = _COOKIE.sub(f"={MASKED}", value[1], 1 if kind == "set-cookie" else 0)
        else:
            mark = value[1][0] if value[1][0] in "\"'" else ""
            masked = f"{mark}{MASKED}{mark}"
        pieces += text[done : value.start(1)], masked
        done = value.end(1)
    return "".join((*pieces, text[done:])) if pieces else text


def _without_assigned(text: str) -> str:
    """Mask secrets of environments, whose names are in capitals, of connection strings, and in literals.

    Other assignments may be code, or counts of tokens.
    """
    is_connection: bool | None = None  # each is determined at most once, since that reads the whole text
    is_configuration: bool | None = None

    def masked(found: re.Match[str]) -> str:
        nonlocal is_connection, is_configuration
        value, literal = found.groups()
        name = _name_before(text, found.start() - (literal is not None))
        if literal is not None:
            if not looks_secret(name):
                return found[0]
            if (mark := _MARKS.match(literal)) is not None:
                return f"= {mark[0]}{MASKED}{mark[0]}"
            if is_configuration is None:
                is_configuration = _SECTION.search(text) is not None
            is_secret = is_configuration or (_MIXED.fullmatch(literal) and not _IDENTIFIER.fullmatch(literal))
            return f"= {MASKED}" if is_secret else found[0]
        is_list = name.endswith(("TOKENS", "KEYS")) and "," in value
        if (not is_list and not looks_secret(name)) or value[1:-1] == MASKED or _PLACEHOLDER.fullmatch(value):
            return found[0]
        is_property = text.endswith(f".{name}", 0, found.start())
        if not (_IS_LITERAL.fullmatch(value) or (name.isupper() and not is_property)):
            if is_connection is None:
                is_connection = _CONNECTION.search(text) is not None
            if not is_connection:
                return found[0]
        # An argument of a function, in code, where no value ends like base64.
        is_code = _MARKS.match(value) is None and not value.endswith("=")
        is_argument = is_code and text[found.end() : found.end() + 1] in ("(", "[", ",", ")")
        return found[0] if is_argument else f"={MASKED}"

    return _ASSIGNED.sub(masked, text)


def _without_arrows(text: str) -> str:
    def masked(found: re.Match[str]) -> str:
        before = text[max(0, found.start() - _LONGEST_NAME) : found.start()]
        before = before.rstrip(":").rstrip(" \t")
        quote = _QUOTES.match(before[::-1])
        name = _name_before(before, len(before) - (0 if quote is None else quote.end()))
        # A name on its own before `=>` is the parameter of a function in JavaScript.
        is_named = found[0][:2] != "=>" or quote is not None or before.endswith(f":{name}")
        return f"{text[found.start() : found.end(1)]}{MASKED}" if is_named and looks_secret(name) else found[0]

    return _ARROW.sub(masked, text)


def _masked_text(found: re.Match[str]) -> str:
    escape, mark, name, colon, value_mark, value, end = found.groups()
    quote = escape + mark
    is_secret = value and looks_secret(name) and not _PLACEHOLDER.fullmatch(value)
    masked = MASKED if is_secret else _NAMED.sub(_masked_text, value)
    return f"{quote}{name}{quote}{colon}{escape}{value_mark}{masked}{end}"


def _masked_literal(found: re.Match[str]) -> str:
    return found[0] if _PLACEHOLDER.fullmatch(found[2]) else f"{found[1]}{MASKED}"


def _masked_item(found: re.Match[str]) -> str:
    before, _, name, mark = found.groups()
    return f"{before}{mark}{MASKED}" if looks_secret(name) else found[0]


def _masked_line(found: re.Match[str]) -> str:
    before, _, name, value = found.groups()
    return f"{before}{MASKED}" if looks_secret(name) and not _PLACEHOLDER.fullmatch(value) else found[0]


def _masked_value(found: re.Match[str]) -> str:
    before, escape, mark, name, end = found.groups()
    return f"{before}{escape}{mark}{MASKED}{end}" if looks_secret(name) else found[0]
