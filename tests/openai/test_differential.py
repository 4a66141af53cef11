"""With and without instrumentation: the same results, types, exceptions and requests."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openai import OpenAI
from pydantic import BaseModel

from athina_trace import instrument_openai, status, uninstrument_openai

from .conftest import play, play_async
from .scripts import ASYNC_SCRIPTS, SCRIPTS, AsyncScript, Script
from .server import Server


def shown(seen: Any) -> Any:
    """Return a comparable form of a result or an exception."""
    if isinstance(seen, BaseException):
        cause = seen.__cause__ and shown(seen.__cause__)
        return type(seen), re.sub(r"0x\w+|:\d+", "", str(seen)), getattr(seen, "status_code", None), cause
    if isinstance(seen, list):
        return [shown(each) for each in seen]
    return (type(seen), seen.model_dump(warnings=False)) if isinstance(seen, BaseModel) else seen


def played(script: Script) -> tuple[Any, Any]:
    with Server() as server, OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        return shown(play(script, server, client)), server.requests


def played_async(script: AsyncScript) -> tuple[Any, Any]:
    with Server() as server:
        return shown(play_async(script, server)), server.requests


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_program_sees_and_sends_the_same(script: Script, local: Any) -> None:
    plain = played(script)
    instrument_openai()
    assert played(script) == plain
    uninstrument_openai()
    assert played(script) == plain
    assert status().faults == 0


@pytest.mark.parametrize("script", ASYNC_SCRIPTS, ids=lambda script: script.__name__)
def test_an_async_program_sees_and_sends_the_same(script: AsyncScript, local: Any) -> None:
    plain = played_async(script)
    instrument_openai()
    assert played_async(script) == plain
    assert status().faults == 0
