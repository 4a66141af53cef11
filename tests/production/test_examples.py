"""The examples of production, run as their users run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import feedback_page
from athina_trace import configure, flush
from tests.production.servers import waitress_server
from tests.support.athina_server import AthinaServer

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(athina: AthinaServer, tmp_path: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATHINA_")}
    own = {"ATHINA_API_KEY": "key", "ATHINA_BASE_URL": athina.url, "XDG_STATE_HOME": str(tmp_path)}
    return {
        **inherited,
        **own,
        "ATHINA_EXIT_TIMEOUT": "60",  # a busy machine must not fail the test
        "PYTHONPATH": f"{EXAMPLES.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        **more,
    }


def run(athina: AthinaServer, tmp_path: Path, *command: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=EXAMPLES,
        env=environment(athina, tmp_path, **more),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_web_example_accepts_feedback_later(athina: AthinaServer) -> None:
    configure(api_key="key", base_url=athina.url)
    with waitress_server(feedback_page.application) as url:
        page = httpx.get(url, params={"q": "Where <b>is</b> it?"}, headers={"cookie": "visit-7"}, trust_env=False)
        reference = re.findall(r'name="reference" value="([^"]+)"', page.text)[0]
        thanks = httpx.post(f"{url}/feedback", data={"reference": reference, "thumb": "1"}, trust_env=False)
    assert (page.status_code, thanks.text) == (200, "Thank you.")
    assert flush(60)
    log, feedback = (request.json for request in athina.accepted)
    assert (log["external_reference_id"], log["session_id"]) == (reference, "visit-7")
    assert (log["customer_id"], log["prompt_slug"]) == ("disney-usa-2314832", "parcels/v1")
    assert log["response"].startswith("Your parcel")
    assert feedback == {"external_reference_id": reference, "user_feedback": 1}


def test_the_lambda_example_delivers_before_it_returns(athina: AthinaServer, tmp_path: Path) -> None:
    script = (
        "import lambda_handler, urllib.request, json\n"
        "for n in range(3):\n"
        "    lambda_handler.handler({'question': f'Q{n}', 'thread': 't', 'customer': 'c'}, None)\n"
        f"    seen = urllib.request.urlopen('{athina.url}/accepted').read().splitlines()\n"
        "    assert len(seen) == n + 1, seen\n"
        "import os; os._exit(0)"
    )
    run(athina, tmp_path, "-c", script, ATHINA_FLUSH_TIMEOUT="60")
    assert [request.json["user_query"] for request in athina.accepted] == ["Q0", "Q1", "Q2"]
    assert {request.json["session_id"] for request in athina.accepted} == {"t"}


def test_the_batch_example_logs_every_item(athina: AthinaServer, tmp_path: Path) -> None:
    printed = run(athina, tmp_path, "batch.py", "200")
    assert printed.startswith("200 classified, 100 complaints\n")
    assert printed.endswith("200 delivered, 0 waiting, 0 refused\n")
    assert {request.json["environment"] for request in athina.accepted} == {"batch"}


def test_the_example_with_worker_processes_logs_every_question(athina: AthinaServer, tmp_path: Path) -> None:
    printed = run(athina, tmp_path, "worker_processes.py")
    assert printed.endswith("6 logs made\n")
    found = sorted((request.json["user_query"], request.json["session_id"]) for request in athina.accepted)
    assert found == [(f"Question {number}?", f"thread-{number % 2}") for number in range(6)]


@contextmanager
def celery_worker(environment: dict[str, str]) -> Iterator[None]:
    """Run a Celery worker with two forked processes."""
    command = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--pool", "prefork", "-c", "2"]
    process = subprocess.Popen(
        [*command, "--loglevel", "ERROR", "--without-mingle", "--without-gossip", "--without-heartbeat"],
        cwd=EXAMPLES,
        env={**environment, "C_FORCE_ROOT": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # at once, since no task is left to finish
        process.wait(60)


def test_the_celery_example_logs_every_task(athina: AthinaServer, tmp_path: Path) -> None:
    shared = environment(athina, tmp_path, QUEUE=str(tmp_path / "queue"))
    # Sent before the worker starts: it loses messages that this kind of broker has only half written.
    sent = subprocess.run(
        [sys.executable, "celery_tasks.py"], cwd=EXAMPLES, env=shared, capture_output=True, text=True, check=True
    )
    assert sent.stdout == "3 tasks sent\n"
    with celery_worker(shared):
        athina.wait_for(3, timeout=100)
    found = sorted((r.json["user_query"], r.json["session_id"], r.json["customer_id"]) for r in athina.accepted)
    assert found == [(f"Question {n}?", f"thread-{n}", f"customer-{n}") for n in range(3)]
