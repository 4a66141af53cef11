"""A batch job: a thousand questions over a few threads, then a wait for the deliveries, with progress.

python examples/batch.py 1000
"""

import sys
import time

from athina_trace import ContextThreadPoolExecutor, athina_session, athina_trace, flush, status


@athina_trace
def classify(message: str) -> str:
    """Stand in for a model."""
    return "complaint" if "late" in message else "question"


def main(count: int) -> int:
    """Classify `count` messages; return the exit code of the job."""
    messages = [f"Message {number}: my parcel is {'late' if number % 2 else 'where'}" for number in range(count)]
    # The executor passes the session on to its threads, which a ThreadPoolExecutor does not.
    with athina_session(environment="batch", job="nightly"), ContextThreadPoolExecutor(4) as pool:
        kinds = list(pool.map(classify, messages))
    print(f"{count} classified, {kinds.count('complaint')} complaints")
    # Everything is on disk by now; if the job ended here, the next one would deliver the rest.
    deadline = time.monotonic() + 60
    while not (report := flush(timeout=1)) and report.paused is None and time.monotonic() < deadline:
        print(f"  {report.waiting} logs still on their way")
    now = status()
    print(f"{now.delivered} delivered, {now.waiting} waiting, {now.refused} refused")
    return 0 if report else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
