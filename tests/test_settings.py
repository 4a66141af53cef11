"""Settings: from the environment or from `configure`, checked, and silent about the key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import athina_trace
from athina_trace import Settings, SettingsError, athina_session, configure
from athina_trace.settings import VARIABLES
from tests.conftest import KEY

Logs = Callable[[], list[dict[str, Any]]]


def test_the_environment_and_its_defaults() -> None:
    assert Settings.build({}) == Settings()
    settings = Settings.build(
        {
            "ATHINA_API_KEY": KEY,
            "ATHINA_BASE_URL": "https://athina.example/",
            "ATHINA_API_VERSION": "v2",
            "ATHINA_ENVIRONMENT": "production",
            "ATHINA_TRACE_ENABLED": "0",
            "ATHINA_CONNECTIONS": " 3 ",
            "ATHINA_EXIT_TIMEOUT": "0.5",
            "ATHINA_CUSTOM_ATTRIBUTES": '{"team": "parcels"}',
            "ATHINA_MAX_LOG_BYTES": "",
        }
    )
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == KEY
    assert (settings.base_url, settings.api_version) == ("https://athina.example", "v2")
    assert (settings.enabled, settings.connections, settings.exit_timeout) == (False, 3, 0.5)
    assert settings.custom_attributes == {"team": "parcels"}
    assert settings.max_log_bytes == Settings().max_log_bytes


def test_what_is_blank_is_unset() -> None:
    assert Settings.build(api_key=" ", outbox="", relay="") == Settings()
    assert Settings.build({"ATHINA_OUTBOX": " "}) == Settings()


def test_overrides_win_over_the_environment() -> None:
    environment = {"ATHINA_ENVIRONMENT": "from the environment", "ATHINA_CONNECTIONS": "broken"}
    settings = Settings.build(environment, environment="given", connections=2)
    assert (settings.environment, settings.connections) == ("given", 2)


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("ATHINA_CONNECTIONS", "many", "input should be a valid integer"),
        ("ATHINA_CONNECTIONS", "0", "input should be greater than or equal to 1"),
        ("ATHINA_BASE_URL", "athina.example", "must start with http:// or https://"),
        ("ATHINA_BASE_URL", "https://", "must start with http:// or https://, followed by a host"),
        ("ATHINA_TRACE_ENABLED", "perhaps", "input should be a valid boolean"),
        ("ATHINA_CUSTOM_ATTRIBUTES", "team", "input should be a valid dictionary"),
        ("ATHINA_API_VERSION", "v3", "input should be 'v1' or 'v2'"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable_and_rule(variable: str, value: str, rule: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.build({variable: value})
    assert str(caught.value).startswith(f"{variable}='{value}': {rule}")


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^connections=-1: input should be greater"):
        configure(connections=-1)
    with pytest.raises(SettingsError, match=r"^conections=1: extra inputs are not permitted"):
        configure(conections=1)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("conections", "connections"), ("apikey", "api_key"), ("key", "api_key"), ("max_log_size", "max_log_bytes")),
        *(("url", "base_url"), ("host", "base_url"), ("env", "environment"), ("token", "api_key")),
    ],
)
def test_an_unknown_setting_suggests_the_nearest(name: str, meant: str) -> None:
    given: dict[str, Any] = {name: KEY}
    with pytest.raises(SettingsError, match=rf"^{name}=.*; did you mean '{meant}'\?$") as caught:
        configure(**given)
    assert (KEY in str(caught.value)) == (meant != "api_key")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ATHINA_APIKEY", "ATHINA_API_KEY"),
        ("ATHINA_TRACE_API_KEY", "ATHINA_API_KEY"),
        ("ATHINA_ENABLED", "ATHINA_TRACE_ENABLED"),
        ("ATHINA_SAMPLERATE", "ATHINA_SAMPLE_RATE"),
        ("ATHINA_FAVOURITE_COLOUR", None),
        ("APIKEY", None),
    ],
)
def test_a_variable_with_a_typo_is_warned_of(
    variable: str, meant: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.build({variable: KEY}) == Settings()
    assert caplog.messages == ([f"the variable {variable} is not a setting; did you mean {meant}?"] if meant else [])


def test_the_key_is_never_shown() -> None:
    settings = Settings.build({"ATHINA_API_KEY": KEY})
    with pytest.raises(SettingsError) as caught:
        Settings.build({"ATHINA_API_KEY": f"{KEY}\n{KEY}"})
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(settings.api_key), str(caught.value)]
    assert not [text for text in shown if KEY in text]
    assert "ATHINA_API_KEY=(hidden): must consist of printable ASCII characters" in str(caught.value)
    assert KEY not in settings.outbox_path()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().connections = 3


def test_each_destination_has_its_own_outbox() -> None:
    state = {"XDG_STATE_HOME": "/state"}
    paths = [
        Settings.build(environment).outbox_path(state)
        for environment in (
            {},
            {"ATHINA_API_KEY": "one"},
            {"ATHINA_API_KEY": "two"},
            {"ATHINA_API_KEY": "two", "ATHINA_BASE_URL": "https://athina.example"},
        )
    ]
    assert len(set(paths)) == len(paths)
    assert paths[0] == "/state/athina_trace/local.db"
    assert Settings.build({}).outbox_path({}).startswith(str(Path("~/.local/state/athina_trace").expanduser()))
    assert Settings.build({"ATHINA_OUTBOX": "~/here.db"}).outbox_path() == str(Path("~/here.db").expanduser())
    assert Settings.build({"ATHINA_OUTBOX": ":memory:"}).outbox_path() == ":memory:"


def test_a_relative_outbox_stays_where_it_was_when_the_program_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built = Settings.build({"ATHINA_OUTBOX": "box.db"})
    monkeypatch.chdir("/")
    assert built.outbox_path() == str(tmp_path / "box.db")


def test_every_setting_has_a_variable_and_a_description() -> None:
    assert set(VARIABLES) == set(Settings.model_fields)
    assert all(info.description for info in Settings.model_fields.values())


def test_defaults_of_logs_and_what_wins_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHINA_ENVIRONMENT", "production")
    configure(outbox=":memory:", language_model_id="gpt-4o", custom_attributes={"team": "parcels", "a": [1]})
    answer = athina_trace.athina_trace(lambda question: question)
    answer("q")
    with athina_session("s", environment="test", team="letters", language_model_id="gpt-5"):
        answer("q")
    first, second = athina_trace.recent_logs()
    assert (first["environment"], first["language_model_id"]) == ("production", "gpt-4o")
    assert (first["custom_attributes"]["team"], first["custom_attributes"]["a"]) == ("parcels", "[1]")
    assert (second["environment"], second["language_model_id"]) == ("test", "gpt-5")
    assert second["custom_attributes"]["team"] == "letters"


def test_a_wrong_environment_never_reaches_the_decorated_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ATHINA_API_KEY", KEY)
    monkeypatch.setenv("ATHINA_BASE_URL", "no address")
    assert athina_trace.athina_trace(lambda question: question)("q") == "q"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ATHINA_BASE_URL='no address': must start with http:// or https://" in record.getMessage()
    assert athina_trace.status().outbox.endswith("local.db"), "sent to a place that was not meant"


def test_without_a_key_one_line_says_where_logs_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="athina_trace")
    answer = athina_trace.athina_trace(lambda question: question)
    answer("q")
    answer("q")
    (message,) = [r.getMessage() for r in caplog.records if "ATHINA_API_KEY" in r.getMessage()]
    assert "logs stay in the local outbox" in message
    assert athina_trace.flush(60).waiting == 2
