"""A handler like those of AWS Lambda: its logs are delivered before it returns.

Between two events the platform freezes the process, threads and all, and it may never thaw it. So each outermost call
flushes at its end, for at most `flush_timeout` seconds. In a deployment, set ATHINA_FLUSH_EACH_CALL=1 instead of the
line with `configure`, and ATHINA_OUTBOX=:memory: where the disk is read-only.
"""

from typing import Any

from athina_trace import athina_session, athina_trace, configure, current_log

configure(flush_each_call=True)


@athina_trace(capture_inputs=False)
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer one event."""
    current_log().update(user_query=event["question"], session_id=event["thread"], customer_id=event["customer"])
    return {"statusCode": 200, "body": answer(event["question"])}


def answer(question: str) -> str:
    """Stand in for a model."""
    return f"Your parcel reaches you tomorrow. (You asked: {question})"


if __name__ == "__main__":
    for number in range(3):
        with athina_session(environment="local"):
            print(handler({"question": f"Question {number}?", "thread": "thread-1", "customer": "disney"}, None))
