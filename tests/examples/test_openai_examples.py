"""The OpenAI examples as a newcomer runs them: each in its own process, against the stand-in."""

import re

import pytest

from standin_openai import StandIn

from .test_support_chat import Demo


def logs_in(printed: str) -> list[tuple[str, str]]:
    """Return the question and the session of each printed log."""
    found = re.findall(r"^\[\d+\] (.*)\n(?:.*\n)*?    session   (\S+)$", printed, flags=re.MULTILINE)
    return [(question, session) for question, session in found]


def test_responses_without_a_decorator(run_demo: Demo) -> None:
    printed = run_demo("responses_chat.py")
    (first, conversation), (second, same), (third, none), (fourth, root) = logs_in(printed)
    assert first == second == "Hello, where is my parcel PX-48213?"
    assert conversation == same
    assert conversation.startswith("conv_")
    assert (third, none) == ("Can I return my parcel?", "none")
    assert fourth == "Thank you!"
    assert root.startswith("resp_")
    assert printed.count('tool call track_parcel({"parcel_id": "PX-48213"})') == 1
    assert "last seen at the Leipzig hub" in printed
    assert "5 made, 0 delivered, 5 waiting" in printed, "four answers, and the output of the tool as a change"


def test_streams(run_demo: Demo) -> None:
    printed = run_demo("streaming.py")
    assert logs_in(printed) == [
        ("Can I return my parcel?", "streaming-1"),
        ("Can a neighbour take it?", "streaming-1"),
        ("Thank you!", "streaming-1"),
    ]
    assert printed.count("Yes, you can send your parcel back free of charge") == 2
    assert printed.count("You are welcome. Have a good day!") == 2
    assert len(re.findall(r"tokens +\d+ in \+ \d+ out = \d+$", printed, flags=re.MULTILINE)) == 3


def test_many_conversations_at_once(run_demo: Demo) -> None:
    printed = run_demo("async_handlers.py")
    assert logs_in(printed) == [
        ("Can I return my parcel?", "chat-of-ann"),
        ("Thank you!", "chat-of-ann"),
        ("Can a neighbour take it?", "chat-of-bob"),
        ("Thanks.", "chat-of-bob"),
        ("I want a refund.", "chat-of-eve"),
        ("Thank you very much.", "chat-of-eve"),
    ]
    assert re.findall(r"customer  (\w+)", printed) == ["ann", "ann", "bob", "bob", "eve", "eve"]


@pytest.mark.parametrize("name", ["responses_chat.py", "streaming.py", "async_handlers.py"])
def test_with_a_key_they_talk_to_openai(run_demo: Demo, stand_in: StandIn, name: str) -> None:
    printed = run_demo(name, OPENAI_API_KEY="any", OPENAI_BASE_URL=stand_in.base_url)
    assert len(logs_in(printed)) >= 3
