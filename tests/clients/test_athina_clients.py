"""Clients of Athina's API log the same through a gateway as directly."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import httpx
import pytest

import athina_trace
from athina_trace.local_athina import LocalAthina
from athina_trace.schema import ALIASES
from tests.gateway.conftest import serving

SECRET = "plain-secret-of-a-provider-77"

LOGGER = """
from athina_logger.api_key import AthinaApiKey
from athina_logger.feedback.user_feedback import UserFeedback
from athina_logger.inference_logger import InferenceLogger
import threading

AthinaApiKey.set_api_key("key")
InferenceLogger.log_inference(
    prompt=[{"role": "user", "content": "Where is my parcel?"}],
    response={"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "On its way."}}]},
    language_model_id="gpt-4o", prompt_slug="desk/v1", environment="production", functions=[{"name": "find"}],
    function_call_response="no", tools=[{"type": "function"}], tool_calls=[{"id": "call_1"}],
    external_reference_id="ref-1", customer_id=7, customer_user_id="u", session_id="s", user_query="Where?",
    prompt_tokens=1, completion_tokens=2, total_tokens=3, response_time=40, context={"documents": ["a", "b"]},
    expected_response="There.", custom_attributes={"plan": "gold", "nested": {"a": [1]}},
    custom_eval_metrics={"score": 0.5}, cost=0.001, model_options={"temperature": 0.2},
)
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
UserFeedback.log_user_feedback("ref-1", 1, "quick")
"""

LITELLM = f"""
import time, litellm
litellm.success_callback = ["athina"]
for stream in (False, True):
    answer = litellm.completion(
        model="gpt-4o", messages=[{{"role": "user", "content": "Hi"}}], mock_response="Hello", stream=stream,
        api_key="{SECRET}", extra_headers={{"X-Api-Key": "{SECRET}"}}, max_tokens=9,
        metadata={{"session_id": "s", "customer_id": "c", "external_reference_id": f"ref-{{stream}}", "tags": ["a"],
                  "custom_attributes": {{"plan": "gold"}}}},
    )
    if stream:
        list(answer)
time.sleep(3)  # its callbacks run in threads of their own
"""


def run(script: str, url: str) -> None:
    environment = {"ATHINA_BASE_URL": url, "API_BASE_URL": url, "ATHINA_API_KEY": "key", "NO_PROXY": "*"}
    subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        check=True,
        timeout=100,
    )


def arrived(athina: LocalAthina) -> dict[str, dict[str, Any]]:
    athina_trace.flush(10)
    return {log["external_reference_id"]: log for log in athina.logs()}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return each value by its path, without duplicates and content that must not be sent."""
    if isinstance(value, dict):
        parts = [(f"{path}.{name}", each) for name, each in value.items() if path or name not in ALIASES]
    elif isinstance(value, list):
        parts = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
    else:
        return {path: str(value).replace(SECRET, "[masked]")}
    return {name: leaf for at, each in parts for name, leaf in leaves(each, at).items()} or {path: str(value)}


@pytest.mark.parametrize(("script", "count"), [(LOGGER, 1), (LITELLM, 2)], ids=["athina-logger", "litellm"])
@pytest.mark.timeout(200)
def test_what_a_client_logs_is_what_it_logs_directly(
    local_athina: LocalAthina, direct: LocalAthina, script: str, count: int
) -> None:
    run(script, direct.url)
    athina_trace.configure(api_key="k", base_url=local_athina.url)
    with serving() as url:
        run(script, url)
        through, expected = arrived(local_athina), arrived(direct)
        assert set(through) == set(expected)
        assert len(expected) == count
        for reference, log in expected.items():
            assert set(through[reference]) - set(ALIASES) == {name for name, value in log.items() if value is not None}
            # Two runs differ in ids and times: what one sent is compared when it is sent once more.
            again = {**log, "external_reference_id": f"{reference} again"}
            httpx.post(f"{url}/api/v1/log/inference", json=again, headers={"athina-api-key": "key"}, trust_env=False)
            found, sent = leaves(arrived(local_athina)[f"{reference} again"]), leaves(again)
            different = {at: (sent.get(at), found.get(at)) for at in {*found, *sent} if found.get(at) != sent.get(at)}
            assert {at: each for at, each in different.items() if each[1] != "[masked]"} == {}
    assert SECRET not in json.dumps(local_athina.logs())
    assert local_athina.changes() == direct.changes()


FETCH = """
const [url, body] = process.argv.slice(1, 3);
fetch(`${url}/api/v1/log/inference`, {
  method: "POST", headers: { "athina-api-key": "any", "content-type": "application/json" }, body,
}).then(async (answer) => console.log(await answer.text()));
"""


@pytest.mark.parametrize("client", ["curl", "node"])
def test_programs_of_any_language_log_as_the_page_says(local_athina: LocalAthina, client: str) -> None:
    arguments = {
        "curl": ("-s", "@url/api/v1/log/inference", "-H", "athina-api-key: any", "-d", "@body"),
        "node": ("-e", FETCH, "@url", "@body"),
    }
    program = shutil.which(client)
    if program is None:
        pytest.skip(f"needs {client}")
    athina_trace.configure(api_key="k", base_url=local_athina.url)
    body = json.dumps({"language_model_id": "gpt-4o", "prompt": "p", "response": "r ü", "session_id": "s"})
    with serving() as url:
        given = [each.replace("@url", url).replace("@body", body) for each in arguments[client]]
        answer = subprocess.run([program, *given], capture_output=True, check=True, timeout=100)
    reference = json.loads(answer.stdout)["data"]["external_reference_id"]
    assert arrived(local_athina)[reference]["response"] == "r ü"
