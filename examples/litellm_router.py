"""LiteLLM's router: each attempt is logged, the failed one and the one that another model answered.

python -m pip install 'athina-trace[examples,litellm]'
python examples/litellm_router.py     a stand-in plays the models' part; no key is needed
"""

import time

from litellm import Router

from athina_trace import athina_session, flush, recent_logs, status
from athina_trace.integrations.litellm import instrument_litellm
from show import show_conversation, show_delivery
from standin_openai import StandIn

QUESTIONS = ("Can a neighbour take my parcel?", "What if I do not like it, can I send it back?")


def talk(base_url: str) -> None:
    """Ask a missing model two questions, so that a smaller one answers."""
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{model}", "api_base": place, "api_key": "not needed"}}
        for name, model, place in (
            ("large", "gpt-4.1", f"{base_url}/moved"),
            ("small", "gpt-4.1-mini", base_url),
        )
    ]
    # Without cooldowns, so that the missing model is tried for the second question as well.
    router = Router(model_list=models, fallbacks=[{"large": ["small"]}], num_retries=0, disable_cooldowns=True)
    with athina_session("conversation-17", customer_id="disney-usa-2314832"):
        for question in QUESTIONS:
            router.completion(model="large", messages=[{"role": "user", "content": question}])


if __name__ == "__main__":
    instrument_litellm()
    before = status().made
    with StandIn() as server:
        talk(server.base_url)
    # LiteLLM calls its loggers in its own thread, after the call has returned.
    ends = time.monotonic() + 30
    while status().made - before < 2 * len(QUESTIONS) and time.monotonic() < ends:
        time.sleep(0.05)
    report = flush(timeout=10)
    show_conversation(recent_logs(status().made - before))
    show_delivery(report, status())
