"""The gateway's documentation is true."""

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest

import athina_trace
from athina_trace.gateway import athina, bodies, connections, otlp, server, traces
from tests.gateway.conftest import CLIENT, LOG, PATH, Serve

PAGE = (Path(str(athina_trace.__file__)).parent / "gateway" / "README.md").read_text()


def test_the_documented_request_gets_the_documented_response(serve: Serve) -> None:
    athina_trace.configure(outbox=":memory:")
    (block,) = re.findall(r"^```console\n\$ (.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    command, answer = block.rsplit("\n{", 1)
    _, url, _, header, _, body = shlex.split(command)
    name, _, value = header.partition(": ")
    answered = httpx.post(
        serve() + url.removeprefix("http://127.0.0.1:7347"), content=body, headers={name: value}, trust_env=False
    )
    reference = answered.json()["data"]["external_reference_id"]
    assert answered.text == ("{" + answer.strip()).replace("0199…", reference)
    assert athina_trace.recent_logs(1)[0].items() >= json.loads(body).items()


def test_the_metrics_are_as_documented(serve: Serve) -> None:
    athina_trace.configure(outbox=":memory:")
    with httpx.Client(base_url=serve(), headers=CLIENT, trust_env=False) as client:
        client.post(PATH, json=LOG)
        text = client.get("/metrics").text
    table = "".join(re.findall(r"^\| (.*?) \|", PAGE.partition("## Metrics")[2], re.MULTILINE))
    named = re.findall(r"`(athina_trace_\w+|…\w+)`", table)
    found = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    described = {each for each in found if any(each.endswith(name.lstrip("…")) for name in named)}
    assert found == described
    assert [name for name in named if not any(each.endswith(name.lstrip("…")) for each in found)] == []


@pytest.mark.parametrize(
    "words",
    [
        f"| {bodies.MAX_BODY:,} bytes |",
        f"| {bodies._AT_ONCE:,} bytes, then 429 |",
        f"| {connections.MAX_CONNECTIONS:,}; ",
        f"| {connections.HEAD_SECONDS:g} s, about {connections._MAX_HEAD:,} bytes |",
        f"| {connections.BODY_SECONDS:g} s |",
        f"its turn | {connections.TURN_SECONDS:g} s, then 429; an export waits {traces.TURN_SECONDS:g} s for",
        f"| {server._KEEP_ALIVE_SECONDS} s |",
        f"in one log | {athina.MOST_PARTS:,}, then 413",
        f"in one export | {otlp.MOST_MESSAGES:,}, then 413",
        f"the last {traces._MOST_SPANS:,} spans",
        f"{traces._MOST_LOGS} logs for each of {traces._MOST_PARENTS:,} spans that have not",
    ],
)
def test_the_limits_are_as_documented(words: str) -> None:
    assert words in PAGE
