"""Limits, texts and secrets of `athina_trace._serialization`."""

import base64
import itertools
import json
import math
import os
import subprocess
import sys
import time
import tracemalloc
import urllib.parse
from collections import deque, namedtuple
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._serialization import JSON, MASKED, Limits, looks_secret, plain, text
from athina_trace._serialization.binary import without_base64
from athina_trace._serialization.secrets import without_credentials

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
BASE64 = base64.b64encode(PNG).decode()
SMALL = Limits(nodes=40, depth=4, string=50, strings=300)

keys = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda key: not looks_secret(key))
atoms = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=40)
)
data = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)
hashables = atoms | st.floats() | st.integers() | st.binary() | st.text(st.characters(), max_size=60) | st.dates()
anything = st.recursive(
    hashables | st.timedeltas() | st.decimals() | st.uuids() | st.complex_numbers() | st.sets(hashables),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(hashables, inner) | st.builds(iter, st.lists(inner))
    ),
    max_leaves=30,
)


def wire(value: JSON) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def nodes(value: JSON) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(nodes, children))


def depth(value: JSON) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth, children), default=0)


def containers(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [] if children is None else [value, *(found for child in children for found in containers(child))]


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels > 1 else []


@given(data)
def test_small_plain_data_stays_equal(value: Any) -> None:
    assert plain(value) == value


@given(data)
def test_snapshot_shares_no_container(value: Any) -> None:
    theirs = {id(each) for each in containers(value)}
    assert not any(id(each) in theirs for each in containers(plain(value)))


@given(anything)
def test_anything_becomes_json_and_utf8(value: Any) -> None:
    assert wire(plain(value))
    assert text(value).encode() is not None


@given(anything)
def test_limits_hold_for_anything(value: Any) -> None:
    result = plain(value, limits=SMALL)
    assert nodes(result) <= 2 * SMALL.nodes + 2  # each container may add one note
    assert depth(result) <= SMALL.depth
    assert len(wire(result)) < 40_000


@given(anything.filter(lambda value: "iterator" not in repr(value)))
def test_same_value_gives_same_result(value: Any) -> None:
    assert plain(value) == plain(value)


@pytest.mark.parametrize("form", [list, tuple])
def test_ten_million_items_are_not_walked(form: Any) -> None:
    huge = form([0]) * 10_000_000
    tracemalloc.start()
    started = time.thread_time()
    result = plain({"huge": huge, "question": "still here"})
    elapsed = time.thread_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(result, dict)
    assert isinstance(result["huge"], list)
    assert result["huge"][-1] == "… 9990002 more items"
    assert result["question"] == "still here"
    assert elapsed < 1
    assert peak < 5_000_000


@pytest.mark.parametrize("letter", ["x", "é", " ", ";", "\ud800"])
def test_huge_string_is_not_walked(letter: str) -> None:
    huge = letter * 100_000_000
    started = time.thread_time()
    result = plain([huge])
    elapsed = time.thread_time() - started
    assert isinstance(result, list)
    assert str(result[0]).endswith("… [200000 of 100000000 characters]")
    assert len(str(result[0])) < 200_100
    assert elapsed < 1


def test_huge_bytes_and_base64_are_described_by_size() -> None:
    assert plain(bytes(100_000_000)) == "<100000000 bytes>"
    assert plain("data:image/png;base64," + "A" * 50_000_000) == "<50000022 base64 characters of image/png>"


def test_truncated_dict_says_how_much_is_missing() -> None:
    result = plain({str(n): n for n in range(100)}, limits=Limits(nodes=10))
    assert result == {**{str(n): n for n in range(10)}, "…": "… 90 more items"}


def test_all_strings_together_are_bounded() -> None:
    result = plain(["x" * 100] * 5, limits=Limits(strings=250))
    assert result == [
        "x" * 100,
        "x" * 100,
        "x" * 50 + "… [50 of 100 characters]",
        "… [0 of 100 characters]",
        "… [0 of 100 characters]",
    ]


def test_depth_is_bounded() -> None:
    assert plain(nested(3), limits=Limits(depth=2)) == [["<list of 0 items, nested too deep>"]]
    assert depth(plain(nested(500))) == Limits().depth


def test_cycles_are_named() -> None:
    ring: list[Any] = [1]
    ring.append({"again": ring})
    assert plain(ring) == [1, {"again": "<circular list>"}]


def test_cyclic_dict_is_named() -> None:
    ring: dict[str, Any] = {}
    ring["again"] = [ring]
    assert plain(ring) == {"again": ["<circular dict>"]}


def test_more_keys_than_are_remembered() -> None:
    value = {f"key {n}": n for n in range(5000)}
    assert plain(value) == value


def test_shared_values_are_not_a_cycle() -> None:
    shared = {"a": 1}
    assert plain([shared, shared]) == [shared, shared]


def test_branching_cycle_ends() -> None:
    ring: list[Any] = []
    other: list[Any] = [ring, ring]
    ring += [other, other]
    assert nodes(plain(ring)) < 20


def test_an_exhausted_stack_is_no_error() -> None:
    def deeper(left: int) -> JSON:
        return plain([[{"a": object()}]]) if left == 0 else deeper(left - 1)

    deepest = next(left for left in itertools.count() if not reaches(deeper, left + 1))
    assert all(wire(deeper(left)) for left in range(deepest - 60, deepest))


def reaches(deeper: Callable[[int], object], left: int) -> bool:
    try:
        deeper(left)
    except RecursionError:
        return False
    return True


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**53 - 1, 2**53 - 1),
        (2**53, "9007199254740992"),
        (-(2**64), "-18446744073709551616"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ({"\ud800": 1}, {"\ufffd": 1}),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_numbers_and_text_that_json_cannot_represent(value: Any, expected: Any) -> None:
    assert plain(value) == expected


def test_huge_integer_is_described_by_size() -> None:
    assert plain([1 << 100_000]) == ["<int of 100001 bits>"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: "a", "1": "b"}, {"1": "a", "1 (2)": "b"}),
        ({None: 1, True: 2, 1.5: 3}, {"null": 1, "true": 2, "1.5": 3}),
        ({("a", 1): 2}, {'["a",1]': 2}),
        ({b"host": 1}, {"host": 1}),
        ({int: 1}, {"<class int>": 1}),
        ({"k" * 300: 1}, {"k" * 200 + "… [200 of 300 characters]": 1}),
    ],
)
def test_keys_become_strings_and_lose_nothing(value: Any, expected: Any) -> None:
    assert plain(value) == expected


def test_thousands_of_equal_keys_stay_apart() -> None:
    result = plain({object(): n for n in range(5000)})
    assert isinstance(result, dict)
    assert list(result.values()) == list(range(5000))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (PNG, f"<{len(PNG)} bytes of image/png>"),
        (bytearray(b"GIF89a.."), "<8 bytes of image/gif>"),
        (memoryview(b"RIFF....WEBP"), "<12 bytes of image/webp>"),
        (memoryview(b"abcdefgh")[::2], "<4 bytes>"),
        (b"....ftypmp42", "<12 bytes of video/mp4>"),
        (b"", "<0 bytes>"),
        (BASE64, f"<{len(BASE64)} base64 characters of image/png>"),
        (base64.urlsafe_b64encode(PNG).decode(), f"<{len(BASE64)} base64 characters of image/png>"),
        (base64.encodebytes(PNG).decode(), "<2780 base64 characters of image/png>\n"),
        (f"data:image/png;base64,{BASE64}", f"<{len(BASE64) + 22} base64 characters of image/png>"),
        (f"see ![](data:;base64,{BASE64}) there", f"see ![](<{len(BASE64) + 13} base64 characters>) there"),
        (f'{{"image":"{BASE64}"}}', f'{{"image":"<{len(BASE64)} base64 characters of image/png>"}}'),
        ("x" * 5000, "x" * 5000),
        ("aB1_" * 300 + "aB1", "<1203 base64 characters>"),
        ("0123456789abcdef" * 500, "0123456789abcdef" * 500),
        ("word\n" * 1000, "word\n" * 1000),
        ("日本語" * 1000, "日本語" * 1000),
        ("data:text;base64,short", "data:text;base64,short"),
    ],
)
def test_binary_data_is_described_by_length_and_type(value: Any, expected: str) -> None:
    assert plain(value) == expected
    assert plain([value]) == [expected]


@pytest.mark.parametrize("piece", ["aB1" * 300 + ":", "日本語", '{"a":"b"},', "aB1" * 20 + "\n:", "data:a/b;c"])
def test_searching_for_base64_is_fast(piece: str) -> None:
    value = piece * (200_000 // len(piece))
    started = time.thread_time()
    assert plain(value) == value
    assert time.thread_time() - started < 0.5


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "apikey", "apiKey", "X-API-Key", "OPENAI_API_KEY", "openAIApiKey", "password", "passwd"),
        *("db_password", "secret", "client_secret", "token", "access_token", "accessToken", "bot_token"),
        *("authorization", "Authorization", "cookie", "Set-Cookie", "private_key", "credential"),
        *("credentials", "aws_access_key", "auth", "ssn", "jwt", "connection_string", "x-amz-security-token"),
        *("dsn", "sentryDsn", "DB_DSN", "db_pass", "smtpPass", "DB_PASSWORD", "PGPASSWORD"),
        *("api_keys", "accessTokens", "bot_tokens", "Passwort", "secretKeys", "API-KEY", "passphrase", "pwd"),
        *("auth_key", "webhookKey", "anthropic_key", "conn_str", "creds", "auth_header", "mfa_code", "recovery-codes"),
        *("apiKey1", "api_key2", "csrftoken", "csrfmiddlewaretoken", "authtoken", "cvc", "contraseña", "mot_de_passe"),
        *("contrasena", "motDePasse", "wachtwoord", "senha", "webhook_key12"),
    ],
)
def test_secret_names(name: str) -> None:
    assert looks_secret(name)
    assert plain({name: "hidden"}) == {name: MASKED}
    assert plain("hidden", name=name) == MASKED
    assert plain([(name, "hidden")]) == [[name, MASKED]]


@pytest.mark.parametrize(
    "name",
    [
        *("tokens", "max_tokens", "prompt_tokens", "total_tokens", "token_count", "maxTokens", "tokenizer"),
        *("max_token", "eos_token", "time_to_first_token", "next_page_token", "session_id", "author"),
        *("secretary", "key", "keyboard", "question", "authority", "", "monkey", "passage"),
        *("password_policy", "passwordStrength", "token_type", "secret_santa", "password_reset", "max-token"),
        *(
            "password_length",
            "secret_count",
            "password_label",
            "password_changed",
            "password_required",
            "auth_token_enabled",
        ),
        *("password_expired", "password_expiry", "subtoken", "padtoken", "nextToken"),
        *("completion_tokens", "first_pass", "passed", "compass", "user", "database_url", "status_code", "item_key"),
        "How do I change my password?",
    ],
)
def test_harmless_names(name: str) -> None:
    assert not looks_secret(name)
    assert plain({name: "shown"}) == {name: "shown"}


BASE64 = "hunter2hunter2hunter2hunter2"
URLS = [
    ("postgres://app:hunter2@db/prod", "postgres://[masked]@db/prod"),
    ("redis://:hunter2@cache:6379/0", "redis://[masked]@cache:6379/0"),
    ("mongodb+srv://app:hunter2%40x@h/db?retryWrites=true", "mongodb+srv://[masked]@h/db?retryWrites=true"),
    ("amqp://app:p@hunter2@mq", "amqp://[masked]@mq"),
    ("https://ghp_hunter2hunter2hunter2@github.com/a/b", "https://[masked]@github.com/a/b"),
    ("see https://h/x?a=1&api_key=hunter2&b=2#c", "see https://h/x?a=1&api_key=[masked]&b=2#c"),
    ("two: http://a:hunter2@h1, http://b:hunter2@h2", "two: http://[masked]@h1, http://[masked]@h2"),
    ("ünïcode ftp://a:hunter2@h", "ünïcode ftp://[masked]@h"),
    ("https://app.test/#access_token=hunter2", "https://app.test/#access_token=[masked]"),
    (
        "https://s3.test/x?X-Amz-Signature=hunter2&X-Amz-Date=1",
        "https://s3.test/x?X-Amz-Signature=[masked]&X-Amz-Date=1",
    ),
    ("https://blob.test/x?sv=1&sig=hunter2", "https://blob.test/x?sv=1&sig=[masked]"),
    ('{"password": "hunter2", "user": "u"}', '{"password": "[masked]", "user": "u"}'),
    ("{'api_key': 'hunter2'}", "{'api_key': '[masked]'}"),
    ("curl -H 'Authorization: Bearer hunter2hunter2hunter2'", "curl -H 'Authorization: Bearer [masked]'"),
    ("authorization: basic aHVudGVyMjpodW50ZXIyCg==", "authorization: basic [masked]"),
    ("Server=db;User Id=app;Password=hunter2;", "Server=db;User Id=app;Password=[masked];"),
    ("Driver={ODBC};Server=h;Pwd={hunter2;}", "Driver={ODBC};Server=h;Pwd=[masked]"),
    ("AccountName=a;AccountKey=aGVsbG8hunter2==;E=1", "AccountName=a;AccountKey=[masked];E=1"),
    ("Endpoint=sb://h/;SharedAccessKey=hunter2=", "Endpoint=sb://h/;SharedAccessKey=[masked]"),
    ("jdbc:sqlserver://h:1433;user=sa;password=hunter2", "jdbc:sqlserver://h:1433;user=sa;password=[masked]"),
    ("host=db user=app password=hunter2 port=1", "host=db user=app password=[masked] port=1"),
    ("password='hunter2 x' dbname=y", "password=[masked] dbname=y"),
    ('export DB_PASSWORD="hunter2 x"\nA=1', "export DB_PASSWORD=[masked]\nA=1"),
    ("I set OPENAI_API_KEY=hunter2.", "I set OPENAI_API_KEY=[masked]"),
    ("API_KEYS=hunter2,hunter2 TOKENS=hunter2,b\n", "API_KEYS=[masked] TOKENS=[masked]\n"),
    ("host=db,password=hunter2", "host=db,password=[masked]"),
    ('OpenAI(api_key="hunter2hunter2", n=1)', "OpenAI(api_key=[masked], n=1)"),
    ("password = 'hunter2hunter2'\n", "password = '[masked]'\n"),
    ("failed: api_key=hunter2hunter2", "failed: api_key=[masked]"),
    ("tool --password=hunter2hunter2 x", "tool --password=[masked] x"),
    ("GET /x?a=1&api_key=hunter2 HTTP/1.1", "GET /x?a=1&api_key=[masked] HTTP/1.1"),
    ("curl -u ada:hunter2 https://h/x", "curl -u ada:[masked] https://h/x"),
    ('["curl", "-u", "ada:hunter2", "https://h/x"]', '["curl", "-u", "ada:[masked]", "https://h/x"]'),
    ("['curl', '--user', 'ada:hunter2', 'https://h/x']", "['curl', '--user', 'ada:[masked]', 'https://h/x']"),
    (
        '"[\\"curl\\",\\"-u\\",\\"ada:hunter2\\",\\"https://h\\"]"',
        '"[\\"curl\\",\\"-u\\",\\"ada:[masked]\\",\\"https://h\\"]"',
    ),
    ('["curl", "--user=ada:hunter2", "https://h/x"]', '["curl", "--user=ada:[masked]", "https://h/x"]'),
    ("-H 'Authorization: token hunter2hunter2'", "-H 'Authorization: token [masked]'"),
    ('-H "authorization: hunter2hunter2"', '-H "authorization: [masked]"'),
    ("X-Api-Key: hunter2\r\nHost: h", "X-Api-Key: [masked]\r\nHost: h"),
    ("Cookie: a=hunter2; b=hunter2\r\n", "Cookie: a=[masked]; b=[masked]\r\n"),
    ("Set-Cookie: sid=hunter2; Path=/; Max-Age=1", "Set-Cookie: sid=[masked]; Path=/; Max-Age=1"),
    ("password: hunter2hunter2\nuser: u", "password: [masked]\nuser: u"),
    ("apiKey: 'hunter2hunter2', n: 1", "apiKey: '[masked]', n: 1"),
    ("api_keys: [hunter2, hunter2]\n", "api_keys: [masked]\n"),
    ('{"apiKeys": ["hunter2", "b"], "n": [1]}', '{"apiKeys": "[masked]", "n": [1]}'),
    ('"{\\"password\\": {\\"value\\": \\"hunter2\\"}}"', '"{\\"password\\": \\"[masked]\\"}"'),
    (
        f"a -----BEGIN RSA PRIVATE KEY-----\n{BASE64}\n-----END RSA PRIVATE KEY----- b",
        "a -----BEGIN RSA PRIVATE KEY-----[masked] b",
    ),
    (
        f"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A\n\n{BASE64}",
        "-----BEGIN EC PRIVATE KEY-----[masked]",
    ),
    (f"-----BEGIN PGP PRIVATE KEY BLOCK-----\\n\\n{BASE64}", "-----BEGIN PGP PRIVATE KEY BLOCK-----[masked]"),
    ("docker login --password hunter2 --host h", "docker login --password [masked] --host h"),
    ("Run `tool --api-key 'hunter2x'`", "Run `tool --api-key '[masked]'`"),
    ('["tool", "--password", "hunter2", "-v"]', '["tool", "--password", "[masked]", "-v"]'),
    ("Command '['tool', '--api-key', 'hunter2']' failed", "Command '['tool', '--api-key', '[masked]']' failed"),
    (r'{"args": "[\"--token\", \"hunter2\"]"}', r'{"args": "[\"--token\", \"[masked]\"]"}'),
    ('[{"name": "API_KEY", "value": "hunter2"}]', '[{"name": "API_KEY", "value": "[masked]"}]'),
    (r'{"x": "{\"Key\":\"Cookie\",\"Value\":\"hunter2\"}"}', r'{"x": "{\"Key\":\"Cookie\",\"Value\":\"[masked]\"}"}'),
    ("to https://hooks.slack.com/services/T0/B0/hunter2", "to https://hooks.slack.com/services/[masked]"),
    ("https://discord.com/api/webhooks/1/hunter2?wait=1", "https://discord.com/api/webhooks/1/[masked]?wait=1"),
    ("https://api.telegram.org/bot123:hunter2/getMe", "https://api.telegram.org/bot123:[masked]/getMe"),
    (r'{"cmd": "tool --token \"hunter2x\" y"}', r'{"cmd": "tool --token \"[masked]\" y"}'),
    ("<db><user>app</user><password>hunter2</password></db>", "<db><user>app</user><password>[masked]</password></db>"),
    ("<wsse:Password Type='x'>\n hunter2 \n</wsse:Password>", "<wsse:Password Type='x'>\n [masked] \n</wsse:Password>"),
    ("<apiKey><![CDATA[hunter2]]></apiKey>", "<apiKey>[masked]</apiKey>"),
    ('<login user="u" password="hunter2"/>', '<login user="u" password="[masked]"/>'),
    ('<Password value="hunter2"/>', '<Password value="[masked]"/>'),
    ("Send: Bearer hunter2hunter2hunter2 or Basic aHVudGVyMjpodW50ZXIyCg==", "Send: Bearer [masked] or Basic [masked]"),
    ('<add key="DbPassword" value="hunter2" />', '<add key="DbPassword" value="[masked]" />'),
    ("https://maps.test/js?key=hunter2-hunter2-hunter2&v=3", "https://maps.test/js?key=[masked]&v=3"),
    ('{"password": "$hunter2", "token": "hunter2..."}', '{"password": "[masked]", "token": "[masked]"}'),
    ("User(name='ada', password='hunter2')", "User(name='ada', password=[masked])"),
    ("spring.datasource.password=hunter2x\nA=1", "spring.datasource.password=[masked]\nA=1"),
    ("aws_secret_access_key = hunter2+HUNTER2/hunter2\n", "aws_secret_access_key = [masked]\n"),
    ("\n[client]\nuser = ada\npassword = hunter2x\n", "\n[client]\nuser = ada\npassword = [masked]\n"),
    ("//registry.test/:_authToken=hunter2hunter2", "//registry.test/:_authToken=[masked]"),
    ("HTTP_AUTHORIZATION=Bearer hunter2hunter2\nA=1", "HTTP_AUTHORIZATION=[masked]\nA=1"),
    (r'{"code": "password = \"hunter2x\""}', r'{"code": "password = \"[masked]\""}'),
    (r'{"code": "f(api_key=\"hunter2x\", n=1)"}', r'{"code": "f(api_key=[masked], n=1)"}'),
    (r'{"yaml": "a:\n  password: hunter2x\n"}', r'{"yaml": "a:\n  password: [masked]\n"}'),
    (r'{"xml": "<add key=\"ApiKey\" value=\"hunter2\"/>"}', r'{"xml": "<add key=\"ApiKey\" value=\"[masked]\"/>"}'),
    (f"-----BEGIN PRIVATE KEY-----\\\\n{BASE64}", "-----BEGIN PRIVATE KEY-----[masked]"),
    ('[{"header": "Authorization", "value": "hunter2"}]', '[{"header": "Authorization", "value": "[masked]"}]'),
    ("docker login -u ada -p hunter2 h", "docker login -u ada -p [masked] h"),
    ("sshpass -p 'hunter2' ssh -p 22 h", "sshpass -p '[masked]' ssh -p 22 h"),
    ("mysqldump -u root -phunter2 db", "mysqldump -u root -p[masked] db"),
    ("podman login -p=hunter2 h", "podman login -p=[masked] h"),
    (
        f"-----BEGIN PRIVATE KEY-----\\\\nProc-Type: 4,ENCRYPTED\\\\n\\\\n{BASE64}",
        "-----BEGIN PRIVATE KEY-----[masked]",
    ),
    ("db_password = \"hunter2\"; secret = 'hunter2'", "db_password = \"[masked]\"; secret = '[masked]'"),
    ("A_TOKEN=Token hunter2hunter2 B_TOKEN=Basic hunter2hunter2", "A_TOKEN=[masked] B_TOKEN=[masked]"),
    ("A_TOKEN=Basic and A=1", "A_TOKEN=[masked] and A=1"),
    ("curl -uada:hunter2 https://h/x", "curl -uada:[masked] https://h/x"),
    ("env:\n  - name: DB_PASSWORD\n    value: hunter2\n", "env:\n  - name: DB_PASSWORD\n    value: [masked]\n"),
    ("- name: 'API_KEY'\r\n  value: \"hunter2 x\"\n- a: b", "- name: 'API_KEY'\r\n  value: [masked]\n- a: b"),
    ("- name: Authorization\n  value: Basic hunter2", "- name: Authorization\n  value: [masked]"),
    (r'{"yaml": "- name: A_TOKEN\n  value: hunter2\n"}', r'{"yaml": "- name: A_TOKEN\n  value: [masked]\n"}'),
    ("- name: A_SECRET\n  value: Hunter2!&*|>#\n", "- name: A_SECRET\n  value: [masked]\n"),
    ("- name: A_SECRET\n  value: truehunter2 # mine", "- name: A_SECRET\n  value: [masked] # mine"),
    (
        r'{"yaml": "- name: \"A_TOKEN\"\n  value: \"hunter2\"\n  x: 1"}',
        r'{"yaml": "- name: \"A_TOKEN\"\n  value: [masked]\n  x: 1"}',
    ),
    ("{:password => 'hunter2x', :user => 'ada'}", "{:password => '[masked]', :user => 'ada'}"),
    ("['db_password'   => 'hunter2x', 'n' => 1]", "['db_password'   => '[masked]', 'n' => 1]"),
    ('\tapiKey := "hunter2x"\n', '\tapiKey := "[masked]"\n'),
    (r'{"code": "{\"token\" => \"hunter2x\"}"}', r'{"code": "{\"token\" => \"[masked]\"}"}'),
    (
        'Authorization: Digest username="ada", realm="a b", nc=00000001, response="hunter2"\r\nHost: h',
        "Authorization: Digest [masked]\r\nHost: h",
    ),
    (
        r'{"h": "Authorization: Digest username=\"ada\", response=\"hunter2\""}',
        r'{"h": "Authorization: Digest [masked]"}',
    ),
    ("""{'password': "it's hunter2", 'user': 'ada'}""", """{'password': "[masked]", 'user': 'ada'}"""),
    ("{b'password': b'hunter2', 'token': b'hunter2'}", "{b'password': b'[masked]', 'token': b'[masked]'}"),
    (
        "os.environ['API_KEY'] = 'hunter2x'\nx[\"token\"]=\"hunter2x\"",
        "os.environ['API_KEY'] = '[masked]'\nx[\"token\"]=\"[masked]\"",
    ),
    (r'{"code": "x[\"token\"] = \"hunter2x\""}', r'{"code": "x[\"token\"] = \"[masked]\""}'),
    ("My API key: hunter2hunter2hunter2 works", "My API key: [masked] works"),
    ("h:6380,password=hunter2hunter2=,ssl=True", "h:6380,password=[masked],ssl=True"),
    ("smtp_pass: hunter2x\nbecome_pass=hunter2x\n", "smtp_pass: [masked]\nbecome_pass=[masked]\n"),
    ("    client-key-data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBodW50ZXIy/+==\n", "    client-key-data: [key]\n"),
    ("redis-cli -h cache -a hunter2 ping", "redis-cli -h cache -a [masked] ping"),
    ("redis-cli -a 'hunter2' ping", "redis-cli -a '[masked]' ping"),
    ("mongosh -u ada -p hunter2 db", "mongosh -u ada -p [masked] db"),
    ("mongo db1 -u ada -p hunter2", "mongo db1 -u ada -p [masked]"),
    ("mongo --username ada --host h -p 'hunter2'", "mongo --username ada --host h -p '[masked]'"),
    ("CREATE USER ada IDENTIFIED BY 'it''s hunter2';", "CREATE USER ada IDENTIFIED BY '[masked]';"),
    (
        "CREATE USER a IDENTIFIED WITH caching_sha2_password BY 'hunter2'",
        "CREATE USER a IDENTIFIED WITH caching_sha2_password BY '[masked]'",
    ),
    ("create user ada identified by 'hunter2'", "create user ada identified by '[masked]'"),
    ("CREATE USER ada IDENTIFIED BY\n'hunter2'", "CREATE USER ada IDENTIFIED BY\n'[masked]'"),
    ("CREATE USER ada\r\nIDENTIFIED\r\n  BY\t'hunter2'", "CREATE USER ada\r\nIDENTIFIED\r\n  BY\t'[masked]'"),
    ("alter role ada with password\n    'hunter2'", "alter role ada with password\n    '[masked]'"),
    (r"ALTER USER ada\nIDENTIFIED BY\n'hunter2'", r"ALTER USER ada\nIDENTIFIED BY\n'[masked]'"),
    (
        json.dumps({"sql": "ALTER ROLE ada\n\tPASSWORD\n\t'hunter2'"}),
        json.dumps({"sql": "ALTER ROLE ada\n\tPASSWORD\n\t'[masked]'"}),
    ),
    ("a=1; Create User ada Identified By 'hunter2'", "a=1; Create User ada Identified By '[masked]'"),
    ("CREATE SECRET s (TYPE s3, SECRET 'hunter2')", "CREATE SECRET s (TYPE s3, SECRET '[masked]')"),
    (
        "ALTER ROLE ada LOGIN ENCRYPTED PASSWORD 'hunter2' VALID UNTIL '2027-01-01'",
        "ALTER ROLE ada LOGIN ENCRYPTED PASSWORD '[masked]' VALID UNTIL '2027-01-01'",
    ),
    ("ALTER LOGIN ada WITH PASSWORD = N'hunter2'", "ALTER LOGIN ada WITH PASSWORD = N'[masked]'"),
    ("OPTIONS (user 'ada', password 'hunter2')", "OPTIONS (user 'ada', password '[masked]')"),
    ("SET PASSWORD FOR ada = PASSWORD('hunter2')", "SET PASSWORD FOR ada = PASSWORD('[masked]')"),
    ("ALTER USER ada PASSWORD 'hunter2", "ALTER USER ada PASSWORD '[masked]"),
]


@pytest.mark.parametrize(("words", "expected"), URLS)
def test_credentials_in_urls_are_masked_at_any_depth(words: str, expected: str) -> None:
    assert text(words) == plain(words) == expected
    assert plain({"a": [({"deep": words},)]}) == {"a": [[{"deep": expected}]]}
    assert list(plain({words: 1})) == [expected]  # type: ignore[arg-type]
    assert text(ValueError(words)) == f"ValueError: {expected}"


def test_credentials_in_objects_that_are_urls_are_masked() -> None:
    assert plain({"base": httpx.URL("https://app:hunter2@h/x")}) == {"base": "https://[masked]@h/x"}
    for parse in (urllib.parse.urlsplit, urllib.parse.urlparse):
        assert plain(parse("https://app:hunter2@h/x?token=hunter2#y")) == "https://[masked]@h/x?token=[masked]#y"


@pytest.mark.parametrize(
    "words",
    [
        "git clone ssh://git@github.com/a/b",
        "https://example.com/a:b@c",
        "https://example.com:8080/@someone?page_token=3&max_tokens=5",
        "http://[::1]:80/ and user:pass@host",
        "a::b://c",
        "key=1&token=2",
        "Is it so?a=1 and token=2",
        "Password: must be at least 12 characters. Authorization: you need 2 of them; Cookie: a recipe.",
        "def connect(password: str, api_key: str | None = None, token: Token2) -> None: ...",
        'api_key: "the name of it", secret = "two words 2", tokens: [1, 2, 3], KEYS=none',
        "curl https://h/x -u ada",
        'a bearer of "news": none, "tokens": "9", "password": 9, "secret": ""',
        '{"secret": "", "user": "u"}',
        "Note: basic understanding2 of it; bearer:",
        "def login(token=None): return connect(host=host, password=password, api_key=key)",
        "connect(host=h, token=tokens[0], password=read(1))",
        "E=mc2, token = 3; if password==x",
        'var token=a;b.token=c; <a href="x" token=y>',
        "TOKEN=$(cat x) PASSWORD=$PW API_KEY=os.environ['K']",
        "max_tokens=5 host=x password=? -----",
        "-----BEGIN CERTIFICATE-----\nabc",
        '["--password", "--token", "--user", "ada", "--no-password"], {"name": "api", "value": "shown"}',
        'a "--password" option, "--token", "$TOKEN"',
        '"name": "token", "type": "string", {"key": "hook", "value": "https://hooks.slack.com"}',
        "Use --password or --token and --api-key with it; the --secret is base64, --token $TOKEN1 --ssh-key ./key1.pem",
        "<password>{password}</password><token>${TOKEN}</token><secret>It is below.</secret><password></password>",
        '<input type="password" name="password" placeholder="Your password"><Login token={token} password="true"/>',
        "<label>Password</label> if a <b and password > c: x =='<password>'",
        "https://s3.test/x?key=reports/2026/11.pdf&key=user-profile",
        "What comes after -----BEGIN PRIVATE KEY-----? It is the key in base64, and then -----END PRIVATE KEY-----.",
        'export OPENAI_API_KEY=your-key-here API_KEY=YOUR_API_KEY PASSWORD= TOKEN=... SECRET=sk-... DB_PASSWORD=""',
        '{"api_key": "YOUR_API_KEY", "password": "<your-password>", "token": "***"}',
        'export LS_API_KEY=ls_... A_KEY=sk-ant-... API_KEY="${MY_API_KEY}" B_TOKEN=abc_xxxx {"token": "$MY_TOKEN"}',
        """headers={"Authorization": "Bearer YOUR_API_KEY"} {'Authorization': 'Bearer ${TOKEN}', "secret": "<a b>"}""",
        '"password": {"type": "string", "description": "The user\'s password"}, "api_key": {"type": "string"}',
        r'{"a": "{\"token\": {\"description\": \"one\", \"type\": \"string\", \"minLength\": 8}}"}',
        '{"required": ["password", "user"]}',
        "docker login -p $PASSWORD1 h; sshpass -p {password1} ssh h",
        "docker run -p 8080:80a -u 1000:1000 h; mkdir -p a1bcdefg; mysql -u root -p mydb1; mysql -P 1 -p < d1.sql",
        "self.password=hunter2x this.token=other2token x.token = tokens2 password = user2.password",
        "token = tokenizer2.next_token secret = Secret2Factory api_key = load_the_first_key_of_2",
        "token = FIRST_TOKEN_OF_THE_2; settings.API_KEY=value",
        '{"token": "sk-…"}',
        "token = OAuth2TokenProviderWithRefresh\nsecret = S3SecretStoreForThisProject\n",
        "def f(token: OAuth2TokenProvider) -> Token2: ...",
        "f = (token) => 'hunter2x'; g = token => 'hunter2x'; {'password' => 'required|min:8', :token => token2}",
        'if (token := "a word"): password := os.Getenv("PASSWORD_1"); x.user := "hunter2x"',
        "- name: DB_PASSWORD\n  value: $(PASSWORD1)\n- name: A_TOKEN\n  value: '{{ token1 }}'\n",
        "- name: USE_TOKEN\n  value: False\n- name: A_SECRET\n  value: null\n- name: B_SECRET\n  value: !ref x1\n",
        "curl https://h/1 first, then tool -url:https://h/2 -uri:http://h",
        "- name: OPENAI_API_KEY\n  value: your-key\n- name: B_API_KEY\n  value: ''\n",
        "- name: USE_TOKEN\n  value: true\n- name: A_SECRET\n  value: /run/secrets/1\n- name: B_TOKEN\n  type: x2\n",
        "name: token\n value: what comes after it\nname: user\n value: hunter2\nvalue: of a token",
        "if x['token'] == 'hunter2x' or x['page'] = 'hunter2x': x['token'] = 'a word' + x['password']",
        "API key: [Get your API key here](https://x.y/keys), secret key: [required, hunter2hunter2hunter2x]",
        "docker run --name mongo -p '27017:27017' -p 27018:27018/tcp mongo:7; docker exec mongo mkdir -p /data/db1x",
        "API key: required. The key: hunter2hunter2hunter2x, foreign key: hunter2hunter2hunter2x, api key: user2",
        "first_pass: hunter2x, f(password=hunter2x,n=1), {'name': \"it's hunter2\"}, LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0",
        "redis-cli -a then reads it, redis-cli get a -a hunter2, mongosh -p $PASSWORD1, mongosh --port 1 -p",
        "It is identified by 'the name', the password 'must be' long, the PASSWORD is 'hunter2', stood by 'customer2'.",
        "PASSWORD '$1' PASSWORD '%s' IDENTIFIED BY '{pw}' IDENTIFIED BY 'your_password' PASSWORD = 'password' BY ''",
        'Authorization: Digest is older than Basic; WWW-Authenticate: Digest realm="x", nonce="1", qop="auth"',
    ],
)
def test_texts_without_credentials_stay(words: str) -> None:
    assert text(words) == plain([words], name="x")[0] == words  # type: ignore[index]


RANDOM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567abcdefghijklmnopqrstuvwxyz"


def of(letters: str, least: int, most: int = 0) -> st.SearchStrategy[str]:
    return st.text(letters, min_size=least, max_size=most or least)


WORDS = RANDOM[32:] + RANDOM[:32] + "0189"
KEYS = st.one_of(
    st.builds("sk-1{}".format, of(WORDS, 19, 47)),
    st.builds("sk-aA1{}".format, of(WORDS + "-_", 19, 47)),
    st.builds(
        "{}{}".format, st.sampled_from(["sk-proj-", "sk-ant-api03-", "sk-or-v1-", "glpat-"]), of(WORDS + "-_", 24, 80)
    ),
    st.builds("sk-lf-{}".format, st.uuids()),
    st.builds("gh{}_{}".format, st.sampled_from("opsur"), of(WORDS, 36)),
    st.builds("github_pat_{}".format, of(WORDS + "_", 82)),
    st.builds("{}{}".format, st.sampled_from(["gsk_", "hf_", "r8_", "pplx-"]), of(WORDS, 40, 48)),
    st.builds("AKIA{}".format, of(RANDOM[:32], 16)),
    st.builds("AIza{}".format, of(WORDS + "-_", 35)),
    st.builds("xoxb-123456789012-{}".format, of(WORDS, 24)),
    st.builds(
        "{}{}".format,
        st.sampled_from(["sk_live_", "rk_test_", "whsec_", "nvapi-", "xai-", "tvly-dev-", "xapp-1-", "pypi-AgE"]),
        of(WORDS, 64),
    ),
    st.builds("npm_{}".format, of(WORDS, 36)),
    st.builds("{}JQQJ99{}".format, of(WORDS, 52), of(WORDS, 26)),
    st.builds("pcsk_{}_{}".format, of(WORDS, 6), of(WORDS, 60)),
    st.builds("{}{}".format, st.sampled_from(["tgp_v1_", "ntn_"]), of(WORDS, 43, 46)),
    st.builds("jina_{}{}".format, of("0123456789abcdef", 32), of(WORDS + "-_", 28)),
    st.builds("sk_{}".format, of("0123456789abcdef", 48)),
    st.builds("csk-{}".format, of("0123456789abcdefghijklmnopqrstuvwxyz", 48)),
    st.builds("shp{}_{}".format, st.sampled_from(["at", "ca", "pa", "ss"]), of("0123456789abcdef", 32)),
    st.builds("dop_v1_{}".format, of("0123456789abcdef", 64)),
    st.builds("GOCSPX-{}".format, of(WORDS + "-_", 28)),
    st.builds("lsv2_pt_{}_{}".format, of("0123456789abcdef", 32), of("0123456789abcdef", 10)),
    st.builds("eyJ{}.eyJ{}.{}".format, of(WORDS, 12, 30), of(WORDS, 12, 60), of(WORDS + "-_", 43)),
)


@given(
    st.sampled_from(["", "I use ", "key:", "\n", "(", "Ünï ", "x=", '{"a": "\\n', "/", "%3D"]),
    KEYS,
    st.sampled_from(["", " ", ".", ",", '"', ")\n"]),
)
def test_keys_of_well_known_services_are_masked_wherever_they_are(before: str, key: str, after: str) -> None:
    words = f"{before}{key}{after}"
    assert key not in text(words)
    assert text(words).startswith(before)
    assert text(words).rstrip(".") in {f"{before}{notice}{after}".rstrip(".") for notice in (MASKED, "[key]")}
    assert plain([words]) == plain([text(words)])


PROSE = st.one_of(
    st.from_regex(r"[a-z]{1,8}([-_][a-z]{1,8}){0,5}", fullmatch=True),
    st.from_regex(r"sk-[a-z]{2,10}([-_]{1,2}[a-z]{2,10}){1,4}(-\d{1,3})?", fullmatch=True),  # names of styles
    st.from_regex(r"(order|task|risk|desk|run|msg|ref)[-_#][0-9]{1,12}", fullmatch=True),
    st.sampled_from(
        [
            "sk-SK",
            "sk-...",
            "SG.",
            "ya29.…",
            "AQ.A",
            "JQQJ99",
            "jina_embeddings_v3",
            "AKIA",
            "ghp_…",
            "xoxb-",
            "AIza…",
            "eyJhbGciOiJ9",
            "sk-your-api-key",
        ]
    ),
    st.uuids().map(str),
    of("0123456789abcdef", 32, 64),
    of(WORDS, 8, 40).map(lambda word: f"a{word}"),
    st.binary(max_size=60).map(lambda data: f"A{base64.b64encode(data).decode().rstrip('=')}"),
    st.from_regex(r"(chatcmpl|resp|msg|call|thread|toolu|fp|gen)[-_][A-Za-z0-9]{10,40}", fullmatch=True),
)


@given(st.lists(PROSE, max_size=8).map(" ".join))
def test_prose_identifiers_hashes_and_base64_are_not_keys(words: str) -> None:
    assert without_credentials(words) == words


secrets = st.sampled_from(
    ["authorization", "Bearer 0123456789abcdef", "https://ada:secret@x", '{"api_key": "sk-1"}', ""]
)


@given(st.lists(st.one_of(st.text(max_size=40), secrets), max_size=18))
def test_a_list_of_texts_is_read_the_same_anywhere(texts: list[str]) -> None:
    taken, elsewhere = plain(texts), plain({"texts": texts})
    assert {"texts": taken} == elsewhere
    assert taken is not texts


PIECES = (
    *("What does it say? " * 40, "x" * 500, "x" * 1_000, BASE64, f"data:image/png;base64,{BASE64}"),
    *("data:;base64,AAAA", "; ", ": ", "/", "\n", '"', "'", "é", "https://app:hunter2@db/", "?token=abc&sig=d"),
    *(
        "Bearer 0123456789abcdef ",
        '"password": "hunter2"',
        "'password': 'hunter2'",
        "Basic 0123456789abcdef",
        "basically: ",
    ),
)


@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_texts_of_any_length_are_searched_for_base64_and_credentials(pieces: list[str]) -> None:
    words = " ".join(["A question that is longer than what needs no look for data URLs.", *pieces])
    expected = without_credentials(without_base64(words)[0])
    assert text(words) == expected
    assert plain({"x": [words]}) == {"x": [expected]}


@given(before=st.text(st.characters(codec="utf-8"), max_size=30), length=st.integers(0, 80))
def test_credentials_are_masked_whatever_surrounds_or_truncates_them(before: str, length: int) -> None:
    assert "hunter2" not in text(f"{before} postgres://app:hunter2@db/prod{'.' * length}", limits=SMALL)


@pytest.mark.parametrize(
    "piece",
    [
        *("://a:b", "://" + "a" * 19, "?a=", "&token", "://:" + "@" * 9),
        *('"a":"', "\\", '\\"a\\":\\"', "'a':\"", '"' + "a" * 64, 'bearer ":', '"a" ', "Basic a"),
        *("a=", "TOKEN=a ", "a='", "'a=", "PASSWORD={", "a a=b", "host=x;pwd=", "-----BEGIN PRIVATE KEY-----", "-"),
        *("password=x ", "password=x,", "KEYS=a,b,c", "KEYS=a,b=", "A_KEY=,", '"api_key": [a', '"password":{'),
        *("x-api-key:", "password: a1", "api_key = 'a1", "cookie: a=", "set-cookie:a=b;", "authorization: a1, a="),
        *("curl -u a", "?a", "key: [", "token: ", "secret:1"),
        *("a.token=", ".token=a1bcdefg ", "token = a1bcdefg ", "[a]\n"),
        *("sshpass -p ", "docker login -p ", "mysql ", "docker ", " -pa1"),
        *('"token":{"type":"', '"password":{"type":1,', "API_KEY=a_", '"token":"a-', "TOKEN=your_a", '"token":"<a'),
        *(
            "sk-",
            " sk-aaaaaaaaaaaaaaaaaaaaa",
            "\\nsk-a1A",
            "eyJaaaaaaaa.",
            "AKIA",
            " AIza-",
            " xoxb-a",
            "I",
            "_",
            "gh_",
        ),
        *(
            "SG.",
            "ya29.a.",
            " ya29.aaaaaaaaaaaa",
            "AQ.Ab",
            " aJQQJ99",
            "jina_a",
            "ABSK",
            "G",
            "9",
            '"--a',
            '"--token", "',
        ),
        *('"name":"token","value":"', "://hooks.slack.com/a/", "://api.telegram.org/bot1:", "https://hook"),
        *("--password ", "--token a", "--a", "<password>", "<a password='x ", "<a ", "</password>", "?key=a", '<a b="'),
        *(f"-----BEGIN PRIVATE KEY-----{'a: ' * 30}", "-----BEGIN PRIVATE KEY-----a: b\n\n", "-----BEGIN "),
        *("name: a_token\n value: ", "name: a", "token => 'a1", "token =>", "=> ' ", "token := 'a1", ":=", "value:"),
        *(
            "authorization: Digest a=1, ",
            "password 'a1bcdef",
            "IDENTIFIED BY '",
            "IDENTIFIED WITH a ",
            "PASSWORD '",
            "PASSWORD\n",
            "'a1\n  identified",
            "\\n'",
            "PASSWORD ((",
            "mongo -u a",
            "'token': \"",
            "'a':b'",
            "['token'] = 'a1bcdefg",
            "['token']=",
            "redis-cli a",
            "mongosh a",
            "api key: a1",
            "LS0tLS1CRUdJTiBQUkl",
            " LS0tLS1CRUdJTiBQUklaaaaaaaaaaaaaaaaaa",
            'authorization: Digest a="b',
            " -ua",
            "token: aA1Bcc",
            "token = OAuth2Aaaaaa ",
        ),
    ],
)
@pytest.mark.parametrize("before", ["://", '"a":"x'])
def test_searching_for_credentials_is_fast(before: str, piece: str) -> None:
    value = f"{before}{piece * (200_000 // len(piece))}x"
    started = time.thread_time()
    plain(value)
    assert time.thread_time() - started < 0.5


@given(
    inner=st.recursive(
        st.sampled_from(["hunter2 \"quoted\" \\ 'once'", "hunter2\\"]).map(lambda secret: {"b": "\\", "token": secret}),
        lambda inside: st.builds(lambda value: {"a": value, "b": [1]}, st.one_of(inside, inside.map(json.dumps))),
        max_leaves=4,
    ),
    cut=st.integers(0, 80),
)
def test_secrets_within_texts_of_json_are_masked_however_deep(inner: Any, cut: int) -> None:
    words = json.dumps(inner)
    assert "hunter2" not in text(f"before: {words} after")
    assert "hunter2" not in text(words, limits=Limits(string=cut))
    assert json.loads(text(words))


def test_headers_in_lists_of_any_kind() -> None:
    assert plain(["X-Api-Key", "hunter"]) == ["X-Api-Key", MASKED]
    assert plain([["Cookie", "hunter2"], ("token", "hunter2")]) == [["Cookie", MASKED], ["token", MASKED]]
    assert plain({"name": "X-Api-Key", "value": "hunter2"}) == {"name": "X-Api-Key", "value": MASKED}
    assert plain({"key": "secret", "value": "hunter2", "on": True}) == {"key": "secret", "value": MASKED, "on": True}
    assert plain({"Name": "DB_PASSWORD", "Value": "hunter2"}) == {"Name": "DB_PASSWORD", "Value": MASKED}
    assert plain({"Header": "X-Api-Key", "Value": "hunter2"}) == {"Header": "X-Api-Key", "Value": MASKED}
    header = namedtuple("header", "name value")  # noqa: PYI024 - as clients make them
    assert plain(header("Cookie", "hunter2")) == {"name": "Cookie", "value": MASKED}
    assert plain({"name": "token", "value": None}) == {"name": "token", "value": None}
    assert plain({"name": "a", "value": "shown"}) == {"name": "a", "value": "shown"}
    documents = ["How to change your password", "Parcels"]
    assert plain(documents) == plain((*documents,)) == documents
    assert plain({"your new password": "hunter2"}) == {"your new password": MASKED}
    assert plain({documents[0] + " at once": "shown"}) == {documents[0] + " at once": "shown"}


ARGUMENTS = st.lists(
    st.sampled_from(
        [("--password", "hunter2"), ("--api-key", 7), ("--token", "-v"), ("--user", "ada"), ("tool",), (7,)]
    ),
    max_size=8,
)


@given(ARGUMENTS, st.sampled_from([list, tuple, deque]))
def test_secrets_among_the_arguments_of_a_command(parts: list[tuple[Any, ...]], kind: Any) -> None:
    arguments = ["run", *itertools.chain(*parts), "-x"]
    masked = {"--password": ("--password", MASKED), "--api-key": ("--api-key", MASKED)}
    shown = ["run", *itertools.chain(*(masked.get(part[0], part) for part in parts)), "-x"]
    assert plain(kind(arguments)) == plain({"args": kind(arguments)})["args"] == shown  # type: ignore[index,call-overload]
    for written in (json.dumps(arguments), repr(arguments), json.dumps({"x": json.dumps(arguments)})):
        assert "hunter2" not in text(written)


def test_a_name_and_a_password_among_the_arguments_of_a_command() -> None:
    assert plain(["/usr/bin/curl", "-u", "ada:hunter2", "https://h"]) == ["/usr/bin/curl", "-u", MASKED, "https://h"]
    assert plain(["curl", "--user", "ada", "-u"]) == ["curl", "--user", "ada", "-u"]
    assert plain(["curl", "--user", "ada:hunter2"]) == ["curl", "--user", MASKED]
    assert plain(["mkdir", "-pv", "mysql/data"]) == ["mkdir", "-pv", "mysql/data"]
    assert plain(["docker", "login", "-u", "ada", "-p", "hunter2"])[-1] == MASKED  # type: ignore[index]
    assert plain(("sshpass", "-p", "hunter2", "ssh", "h")) == ["sshpass", "-p", MASKED, "ssh", "h"]
    assert plain(["mysqldump", "-uroot", "-phunter2", "db"]) == ["mysqldump", "-uroot", f"-p{MASKED}", "db"]
    assert plain(["redis-cli", "-a", "hunter2", "ping"]) == ["redis-cli", "-a", MASKED, "ping"]
    assert plain(["mongosh", "-u", "ada", "-p", "hunter2"])[-1] == MASKED  # type: ignore[index]
    for harmless in (
        ["docker", "run", "-u", "1:1", "-p", "80:80"],
        ["docker", "run", "-p", "27017:27017", "mongo"],
        ["docker", "exec", "mongo", "mkdir", "-p", "/data"],
        ["mysql", "-p", "db"],
        ["python", "-u", "a.py:3"],
        ["ls", "-a", "x"],
    ):
        assert plain(harmless) == harmless


@pytest.mark.parametrize("item", ["-pa", "-p", "-u", "--user"])
def test_reading_a_list_with_many_options_is_fast(item: str) -> None:
    started = time.thread_time()
    plain([item, "/" * 50] * 4000)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    "data",
    [
        {"properties": {"password": {"type": "string", "minLength": 8}}, "required": ["password", "user"]},
        {"properties": {"api_key": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Api Key"}}},
        {"token": " Hello", "logprob": -0.3, "bytes": [72]},
        {"has_password": True, "auth": False},
        ["token", "session"],
    ],
)
def test_what_says_that_there_is_a_secret_is_none(data: Any) -> None:
    assert plain(data) == plain({"a": [data]})["a"][0] == data  # type: ignore[index,call-overload]
    assert plain(True, name="password") is True


def test_a_schema_with_a_value_in_it_is_a_secret() -> None:
    assert plain({"password": {"type": "string", "default": "hunter2"}}) == {"password": MASKED}
    assert plain({"credentials": {}, "token": "x"}) == {"credentials": MASKED, "token": MASKED}
    assert "hunter2" not in text('{"password": {"type": "string", "default": "hunter2"}}')
    assert "hunter2" not in text('{"password": {"description": "hunter2"}}')


def test_none_is_no_secret_but_structures_are() -> None:
    assert plain({"password": None, "credentials": {"user": "u"}}) == {
        "password": None,
        "credentials": MASKED,
    }


def test_a_name_that_is_a_key_is_masked_wherever_it_was_seen_before() -> None:
    name = "ghp_0123456789abcdef0123456789abcdef0123"
    assert plain(1, name=name) == 1
    assert plain({name: 1}) == {"[key]": 1}


def test_very_long_names_are_read_up_to_a_limit() -> None:
    assert not looks_secret("x" * 10_000_000 + "password")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("as it is", "as it is"),
        (None, ""),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        (True, "true"),
        (1.5, "1.5"),
        (b"123", "<3 bytes>"),
    ],
)
def test_text(value: Any, expected: str) -> None:
    assert text(value) == expected


def test_sets_read_the_same_in_every_process() -> None:
    values = "{'b', 'a', 3, 2.5, None, ('x', 1), frozenset('q')}"
    code = f"from athina_trace._serialization import plain; print(plain({values}))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert outputs == {"[2.5, 3, 'a', 'b', ['q'], ['x', 1], None]\n"}
