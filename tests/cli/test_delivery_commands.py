"""Commands that change an outbox or send what it holds, against a local Athina."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.athina_server import AthinaServer, answer
from tests.viewer.outboxes import log, put, settle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def status_of(run: Run, path: Path) -> dict[str, int]:
    status: dict[str, int] = json.loads(run("status", "--json", "--outbox", str(path)).stdout)
    return status


def test_flush_sends_waiting_logs(run: Run, run_apart: Run, path: Path) -> None:
    put(path, *(log(f"s{number % 5}") for number in range(30)))
    with AthinaServer() as athina:
        done = run_apart("flush", "--outbox", str(path), ATHINA_API_KEY="k", ATHINA_BASE_URL=athina.url)
        assert done.returncode == 0, done.stderr
        assert "30 waiting" in done.stdout
        assert "30 sent, 0 waiting" in done.stdout
        assert len(athina.accepted) == 30
    assert status_of(run, path)["waiting"] == 0


def test_flush_reports_waiting_logs_when_it_times_out(run: Run, run_apart: Run, path: Path) -> None:
    put(path, log())
    done = run_apart("flush", "--timeout", "0.3", "--outbox", str(path), ATHINA_API_KEY="k")
    assert done.returncode == 1
    assert "0 sent, 1 waiting" in done.stdout
    assert status_of(run, path)["waiting"] == 1


def test_flush_succeeds_if_nothing_was_ever_logged(run: Run, path: Path) -> None:
    done = run("flush", "--outbox", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nothing was logged yet to {path}\n", "")
    path.with_name("another.db").touch()
    assert "--outbox " + str(path.with_name("another.db")) in run("flush", "--outbox", str(path)).stdout


def test_flush_reports_a_wrong_key(run: Run, run_apart: Run, path: Path) -> None:
    put(path, log())
    with AthinaServer() as athina:
        athina.when(lambda request: True, answer(401))
        done = run_apart("flush", "--outbox", str(path), ATHINA_API_KEY="wr0ng", ATHINA_BASE_URL=athina.url)
    assert done.returncode == 1
    assert "check ATHINA_API_KEY" in done.stderr
    assert "wr0ng" not in done.stdout + done.stderr
    assert "paused       status 401" in run("status", "--outbox", str(path)).stdout


def test_flush_without_a_key_keeps_everything(run_apart: Run, path: Path) -> None:
    put(path, log())
    done = run_apart("flush", "--outbox", str(path))
    assert done.returncode == 1
    assert "no ATHINA_API_KEY" in done.stderr


def test_refused_logs_are_retried_by_number_or_all_and_delivered(run: Run, run_apart: Run, path: Path) -> None:
    entries = [log(f"s{number}") for number in range(60)]
    put(path, *entries)
    settle(path, refused=[entry.reference for entry in entries])
    assert status_of(run, path)["refused"] == 60
    one = run("retry", entries[1].reference, "--outbox", str(path))
    assert (one.returncode, one.stdout) == (0, "1 waiting again\n")
    assert run("retry", "nothing", "--outbox", str(path)).returncode == 1
    assert run("retry", "--outbox", str(path)).returncode == 2
    assert run("retry", "--all", "--outbox", str(path)).stdout == "59 waiting again\n"
    with AthinaServer() as athina:
        run_apart("flush", "--outbox", str(path), ATHINA_API_KEY="k", ATHINA_BASE_URL=athina.url)
        assert len(athina.accepted) == 60


def test_purge_asks_for_confirmation(run: Run, path: Path) -> None:
    put(path, log("a"), log("b"))
    done = run("purge", "--state", "waiting", "--outbox", str(path))
    assert done.returncode == 1
    assert "nothing was deleted" in done.stderr
    assert status_of(run, path)["waiting"] == 2


def test_purge_deletes_logs_by_state_and_age_and_the_counts_add_up(run: Run, path: Path) -> None:
    refused, kept, new = log("a"), log("b"), log("c", made=4e9)
    put(path, refused, kept, new)
    settle(path, refused=[refused.reference], delivered=[kept.reference])
    assert run("purge", "--state", "refused", "--yes", "--outbox", str(path)).stdout == "1 deleted\n"
    done = run("purge", "--state", "waiting", "--older-than", "1h", "--yes", "--outbox", str(path))
    assert done.stdout == "0 deleted\n"
    status = status_of(run, path)
    assert (status["waiting"], status["refused"], status["kept"], status["logs"]) == (1, 0, 1, 2)
    assert refused.reference not in run("logs", "--outbox", str(path)).stdout


def test_check_reports_problems_with_remedies(run: Run, tmp_path: Path) -> None:
    done = run("check")
    assert done.returncode == 1
    assert "!!  key" in done.stdout
    assert "!!  address" in done.stdout
    assert "check ATHINA_BASE_URL" in done.stdout
    with AthinaServer() as athina:
        well = run("check", "--send", ATHINA_API_KEY="s3cret", ATHINA_BASE_URL=athina.url)
        assert (well.returncode, well.stderr) == (0, "")
        assert "!!" not in well.stdout
        assert "s3cret" not in well.stdout
        assert athina.accepted[-1].json["environment"] == "check"
        athina.when(lambda request: True, answer(403))
        bad = run("check", "--send", ATHINA_API_KEY="s3cret", ATHINA_BASE_URL=athina.url)
        assert bad.returncode == 1
        assert "check ATHINA_API_KEY" in bad.stdout


def test_check_uses_the_same_proxy_as_deliveries(run: Run) -> None:
    with AthinaServer() as proxy:
        proxied = {
            "ATHINA_API_KEY": "k", "ATHINA_BASE_URL": "http://athina.invalid", "NO_PROXY": "", "no_proxy": "",
            "http_proxy": proxy.url.replace("//", "//user:s3cret@"),
        }  # fmt: skip
        well = run("check", "--send", **proxied)
        assert (well.returncode, well.stderr) == (0, "")
        assert f"http://athina.invalid answers through the proxy {proxy.url.removeprefix('http://')}" in well.stdout
        assert proxy.requests[0].path.startswith("http://athina.invalid")
    for wrong in (
        "http://user:s3cret@127.0.0.1:9",
        "socks5://127.0.0.1:9",
        "gopher://127.0.0.1:9",
        "http://127.0.0.1:x",
    ):
        bad = run("check", **proxied | {"http_proxy": wrong})
        assert (bad.returncode, bad.stderr) == (1, "")
        assert f"cannot be reached through the proxy {wrong.rpartition('/')[2].rpartition('@')[2]}" in bad.stdout
        assert "s3cret" not in well.stdout + bad.stdout


def test_check_reports_an_outbox_that_others_can_read(run: Run, path: Path) -> None:
    put(path, log())
    run("status", "--outbox", str(path))
    path.chmod(0o644)
    assert f"chmod 600 {path}" in run("check", "--outbox", str(path)).stdout
