"""Athina's API through the gateway: logs arrive as if sent directly, but without content that must not be sent."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import athina_trace
from athina_trace import recent_logs
from athina_trace._pipeline.masking import _BEARER, _KEY, build_mask, mask_fields
from athina_trace._serialization import looks_secret, plain
from athina_trace.gateway.forward import cleaned, commit_log
from athina_trace.local_athina import LocalAthina
from athina_trace.schema import ALIASES, FIELDS
from tests.gateway.conftest import CLIENT, LOG, PATH, Serve

Arrived = Callable[[], list[dict[str, Any]]]

# The form of OpenAI's client, which LiteLLM's callback and Athina's own client send.
COMPLETION = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "tool_calls": None}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
BODIES: list[dict[str, Any]] = [
    LOG,
    {**LOG, "prompt": [{"role": "user", "content": "q"}], "response": COMPLETION, "tools": [{"type": "function"}]},
    {**LOG, "external_reference_id": "r/1 ü", "custom_attributes": {"nested": {"a": [1, None]}, "n": 1.5, "no": None}},
    {**LOG, "completion_tokens": 0, "tool_calls": [{"id": "1"}], "context": {"docs": ["a"]}, "cost": 0.1, "error": "x"},
    {**LOG, "tags": ["a"], "unknown": {"deep": [[[1]]]}, "model_options": {"temperature": 0}, "user_feedback": -1},
]


def same_log(direct: dict[str, Any], through: dict[str, Any]) -> bool:
    """Return whether two logs are equal, apart from the reference and duplicate spellings."""
    sent = {name: value for name, value in direct.items() if value is not None}
    both = {alias: sent[field] for alias, field in ALIASES.items() if field in sent}
    return through == {"external_reference_id": through["external_reference_id"], **sent, **both}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("body", BODIES)
def test_a_log_arrives_unchanged(
    gateway: httpx.Client, local_athina: LocalAthina, arrived: Arrived, body: dict[str, Any], version: str
) -> None:
    answer = gateway.post(f"/api/{version}/log/inference", json=body)
    assert answer.status_code == 200
    (through,) = arrived()
    assert same_log(body, through), through
    assert answer.json()["status"] == "success"
    reference = answer.json()["data"]["external_reference_id"]
    assert reference == through["external_reference_id"] == body.get("external_reference_id", reference)
    httpx.post(f"{local_athina.url}{PATH}", json={**body, "external_reference_id": "direct"}, headers=CLIENT)
    assert {**local_athina.logs()[1], "external_reference_id": None} == {**body, "external_reference_id": None}


NAMES = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=8).filter(
    lambda name: not looks_secret(name) and name not in FIELDS and name not in ALIASES
)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00@:"), max_size=20)
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=list(HealthCheck))
@given(fields=st.dictionaries(NAMES, DATA, max_size=5), response=DATA, attributes=st.dictionaries(NAMES, DATA))
def test_any_log_arrives(
    local: Callable[[], list[dict[str, Any]]], fields: dict[str, Any], response: Any, attributes: dict[str, Any]
) -> None:
    if response is None or isinstance(response, (bool, int, float)):
        response = "r"
    body = {**LOG, **fields, "response": response, "custom_attributes": attributes}
    commit_log(json.loads(json.dumps(body)))
    assert same_log({name: value for name, value in body.items() if value is not None}, recent_logs(1)[0])


def test_updates_and_feedback_are_applied_to_their_log(
    gateway: httpx.Client, local_athina: LocalAthina, arrived: Arrived
) -> None:
    data = gateway.post(PATH, json=LOG).json()["data"]
    reference = data["external_reference_id"]
    # By the id that the gateway gave: Athina has given none yet.
    by_id = gateway.patch(f"{PATH}/{data['prompt_run_id']}", json={"expected_response": "1"})
    by_reference = gateway.patch(
        f"{PATH}/update-by-external-reference-id/{reference}", json={"custom_attributes": {"a": {"b": 1}}, "new": 1}
    )
    liked = {"external_reference_id": reference, "user_feedback": 1, "user_feedback_comment": "quick"}
    feedback = gateway.patch("/api/v1/prompt_run/user-feedback", json=liked)
    assert [each.status_code for each in (by_id, by_reference, feedback)] == [200] * 3
    assert len(arrived()) == 1
    assert local_athina.changes() == [
        {"expected_response": "1"},
        {"custom_attributes": {"a": {"b": 1}}, "new": 1},
        liked,
    ]
    assert athina_trace.status().refused == 0


def test_athinas_own_id_of_a_log_is_passed_on(
    gateway: httpx.Client, local_athina: LocalAthina, arrived: Arrived
) -> None:
    direct = httpx.post(f"{local_athina.url}{PATH}", json=LOG, headers=CLIENT).json()["data"]["prompt_run_id"]
    assert gateway.patch(f"{PATH}/{direct}", json={"expected_response": "2"}).json()["data"]["prompt_run_id"] == direct
    arrived()
    assert local_athina.changes() == [{"expected_response": "2"}]


FEEDBACK = "/api/v1/prompt_run/user-feedback"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (PATH, {"prompt": "p", "response": "r"}, "400: language_model_id is required"),
        (PATH, [], "400: the body must be a JSON object, not list"),
        (PATH, None, "400: the body must be a JSON object, not NoneType"),
        ("/api/v3/log/inference", LOG, "404: there is no version v3; v1 and v2 take logs"),
        (FEEDBACK, {"user_feedback": 1}, "400: external_reference_id is required"),
        (FEEDBACK, {"user_feedback": True}, "400: user_feedback must be 1, 0 or -1, not True"),
    ],
)
def test_invalid_logs_are_refused_with_a_message(
    gateway: httpx.Client, arrived: Arrived, path: str, body: Any, expected: str
) -> None:
    answer = gateway.request("PATCH" if path == FEEDBACK else "POST", path, content=json.dumps(body))
    assert f"{answer.status_code}: {answer.json()['details']['message']}" == expected
    assert arrived() == []


def test_a_wrong_type_loses_no_log(gateway: httpx.Client, arrived: Arrived) -> None:
    body = {**LOG, "prompt_tokens": "many", "custom_attributes": "text", "session_id": 7}
    assert gateway.post(PATH, json=body).status_code == 200
    (log,) = arrived()
    assert log["custom_attributes"] == {"invalid.custom_attributes": "text", "invalid.prompt_tokens": "many"}
    assert log["session_id"] == "7"


def test_half_a_surrogate_pair_loses_no_log(gateway: httpx.Client, arrived: Arrived) -> None:
    for text in ("a\ud800b", "\udc00", "a\x00b"):
        assert gateway.post(PATH, content=json.dumps({**LOG, "response": text})).status_code == 200
    assert [log["response"] for log in arrived()] == ["a\ufffdb", "\ufffd", "a\ufffdb"]


_JWT = st.from_regex(r"eyJ[A-Za-z0-9_-]{5,20}", fullmatch=True)
SECRET = "9f8e7d6c5b4a39281706"


@given(
    inner=st.recursive(
        st.sampled_from([SECRET, f"said {SECRET} twice {SECRET}", f"Bearer {SECRET}", "plain"]),
        lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["a", "api_key", "X-Api-Key"]), part),
    )
)
def test_a_providers_key_is_never_sent(inner: Any) -> None:
    # This provider's keys have no prefix: they are recognised by the name that they have somewhere in the log.
    body = {**LOG, "request": {"litellm_params": {"api_key": SECRET}, "more": inner}, "error": f"bad key {SECRET}"}
    assert SECRET not in json.dumps(cleaned(body))


@given(st.from_regex(_KEY) | st.from_regex(_BEARER) | st.tuples(_JWT, _JWT, _JWT).map(".".join))
def test_the_gateway_masks_the_same_secrets_as_the_key_masker(text: str) -> None:
    mask = build_mask(None, (), ("key",))
    assert mask is not None
    bounded = plain({"a": [text]})
    assert isinstance(bounded, dict)
    assert cleaned({"a": [text]}) == mask_fields(bounded, mask)


def test_keys_of_a_known_form_are_never_sent(gateway: httpx.Client, arrived: Arrived) -> None:
    keys = ["sk-proj-abcdefghij0123456789", "AIzaSyA0123456789012345678901234567890", "gho_0123456789abcdefghijklmnop"]
    body = {**LOG, "request": {"curl": [f"-H 'Authorization: Bearer {key}'" for key in keys]}, "response": keys[0]}
    gateway.post(PATH, json=body)
    (log,) = arrived()
    assert [key for key in keys if key in json.dumps(log)] == []
    assert log["response"] == "[key]"


def test_logs_pass_through_the_configured_steps(local_athina: LocalAthina, serve: Serve, arrived: Arrived) -> None:
    seen = []

    def hook(log: Any) -> Any:
        seen.append(log)
        return None if log.session_id == "dropped" else log.model_copy(update={"customer_id": "hooked"})

    athina_trace.configure(
        api_key="k",
        base_url=local_athina.url,
        environment="staging",
        custom_attributes={"team": "a", "pod": "b"},
        maskers={"email"},
        before_emit=hook,
        hook_timeout=60,
    )
    with httpx.Client(base_url=serve(), headers=CLIENT, trust_env=False) as client:
        body = {**LOG, "response": "to me@example.com", "custom_attributes": {"pod": "c"}, "tags": ["hidden from hook"]}
        assert client.post(PATH, json=body).status_code == 200
        assert client.post(PATH, json={**LOG, "session_id": "dropped"}).status_code == 200
        assert client.post(PATH, json={**LOG, "environment": "production"}).status_code == 200
    first, second = arrived()
    assert (first["response"], first["customer_id"], first["environment"]) == ("to [email]", "hooked", "staging")
    assert first["custom_attributes"] == {"team": "a", "pod": "c"}
    assert second["environment"] == "production"
    assert "tags" not in first
    assert len(seen) == 3


def test_unknown_fields_are_masked_too(local: Callable[[], list[dict[str, Any]]]) -> None:
    athina_trace.configure(outbox=":memory:", maskers={"email"})
    commit_log({**LOG, "tags": ["me@example.com"]})
    assert local is not None
    assert recent_logs(1)[0]["tags"] == ["[email]"]


def test_content_is_removed_if_the_settings_disable_capture() -> None:
    athina_trace.configure(outbox=":memory:", capture_inputs=False, capture_response=False)
    body = {**LOG, "context": "c", "error": "ValueError: told", "request": {"messages": ["p"]}, "total_tokens": 3}
    reference = commit_log(body)
    (log,) = recent_logs(1)
    assert log == {
        "language_model_id": "m",
        "prompt": "",
        "response": "",
        "session_id": "s",
        "error": "ValueError",
        "total_tokens": 3,
        "external_reference_id": reference,
    }


def test_sampling_keeps_whole_conversations() -> None:
    athina_trace.configure(outbox=":memory:", sample_rate=0.5)
    for turn in range(2):
        for session in range(40):
            commit_log({**LOG, "session_id": f"s{session}", "user_query": str(turn)})
    kept = [log["session_id"] for log in recent_logs(100)]
    assert 10 < len(set(kept)) < 30
    assert sorted(kept) == sorted([*set(kept), *set(kept)])
    commit_log({**LOG, "session_id": "failed", "status_code": 500})
    assert recent_logs(1)[0]["session_id"] == "failed"
