"""The migration table from athina-logger: the code on its right side does what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import athina_trace as at
from athina_trace.testing import captured_logs

PAGE = (Path(__file__).parents[2] / "examples" / "README.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| `(.+?)`", PAGE.partition("## Moving from")[2].partition("\n## ")[0], re.MULTILINE)
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


@at.athina_trace
def ask(question: str) -> str:
    return "Hello"


def ask_plainly(question: str) -> str:
    return "Hello"


def stream_text(question: str) -> Iterator[str]:
    yield from ("Hel", "lo")


def row(name: str) -> str:
    (code,) = [str(right) for left, right in ROWS if name in left]
    return code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("InferenceLogger.log_inference", {"prompt": "Hi", "response": "Hello"}),
        ("AthinaMeta(session_id", {"session_id": "thread", "customer_id": "c", "user_query": "Hi"}),
        ("AthinaMeta(user_query", {"user_query": "Hi", "context": {"doc": "text"}, "response": "Hello"}),
        ("AthinaMeta(external_reference_id", {"external_reference_id": "mine", "response": "Hello"}),
        ("openai.ChatCompletion.create", {"language_model_id": "gpt-4o", "response": "Hello", "total_tokens": 3}),
        ("LogOpenAiChatCompletionStreamInference", {"user_query": "Hi", "response": "Hello"}),
        ("LogOpenAiCompletionStreamInference", {"user_query": "Hi", "response": "Hello"}),
        ("`@observe`", {"user_query": "Hi", "response": "Hello"}),
    ],
)
def test_the_replacements_log_the_same(name: str, expected: dict[str, Any]) -> None:
    code = row(name) if name != "`@observe`" else dict(ROWS)["`@observe`"].replace("(ask)", "(ask_plainly)")
    names = {**vars(at), "ask": ask, "ask_plainly": ask_plainly, "stream_text": stream_text, "completion": COMPLETION}
    with captured_logs() as logs:
        exec(code, names)  # noqa: S102 - it is ours
    logs.assert_one(**expected)


def test_feedback_and_api_key_replacements_work() -> None:
    with captured_logs() as logs:
        exec(row("UserFeedback"), {**vars(at), "reference": "r"})  # noqa: S102 - it is ours
        exec(row("AthinaApiKey"), {**vars(at), "KEY": "key"})  # noqa: S102 - it is ours
    assert logs.feedback == [{"external_reference_id": "r", "user_feedback": 1, "user_feedback_comment": "good"}]


def test_inner_logs_have_the_reference_of_the_outer_one() -> None:
    assert "`parent_reference`" in PAGE.partition("nested spans of `@observe`")[2].partition("\n")[0]

    @at.athina_trace
    def outer(question: str) -> str:
        return ask(question)

    with captured_logs() as logs:
        outer("Hi")
    inner, around = logs
    assert (inner.custom_attributes or {})["parent_reference"] == around.external_reference_id
