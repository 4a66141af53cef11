"""multiprocessing: a pool of processes that share one outbox, each with the session of its task.

python examples/worker_processes.py
"""

import multiprocessing

from athina_trace import athina_session, athina_trace, extract, flush, inject, status


@athina_trace
def answer(question: str) -> str:
    """Stand in for a model."""
    return f"Your parcel reaches you tomorrow. (You asked: {question})"


def work(task: tuple[dict[str, str], str]) -> str:
    """Do a task in the scope that was sent with it. Its log is on disk when this returns."""
    scope, question = task
    with extract(scope):
        return answer(question)


def main() -> None:
    """Send each question with its session."""
    tasks, before = [], status().made
    for number in range(6):
        with athina_session(f"thread-{number % 2}", customer_id=f"customer-{number % 2}"):
            tasks.append((inject(dict[str, str]()), f"Question {number}?"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(*pool.map(work, tasks), sep="\n")
        # Let them end normally: leaving the block kills them, and a log that is being sent would arrive twice.
        pool.close()
        pool.join()
    flush()
    print(f"{status().made - before} logs made")


if __name__ == "__main__":
    main()
