"""The fleet: a short form of its soak, and its manifests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from athina_trace.cli.main import parse
from athina_trace.relay.connection import Address
from athina_trace.settings import VARIABLES, Settings
from tests.support.fleet import check, soak


@pytest.mark.timeout(240)
def test_a_fleet_whose_machines_are_killed_loses_nothing() -> None:
    books = soak(seconds=5, seed=1847, pods=4, workers=2, quiet=True)
    assert books["made"] > books["through_gateway"] > 0
    check(books)


FLEET = Path(__file__).parents[2] / "examples" / "fleet"


def manifests() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}:{document['kind']}", document)
        for path in sorted((FLEET / "kubernetes").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def assert_command_exists(command: list[str]) -> None:
    """Require that the command line knows this command; it exits if not."""
    words = shlex.split(command[-1]) if command[:2] == ["sh", "-c"] else command
    if "athina-trace" in words:
        parse(words[words.index("athina-trace") + 1 :])


def assert_variables_exist(variables: Iterable[str]) -> None:
    ours = {name for name in variables if name.startswith("ATHINA_")}
    assert ours <= {*VARIABLES.values(), "ATHINA_GATEWAY_TOKEN"}


@pytest.mark.parametrize(("name", "manifest"), manifests(), ids=lambda value: value if isinstance(value, str) else "")
def test_manifests_have_what_kubernetes_requires(name: str, manifest: dict[str, Any]) -> None:
    kinds = {"Deployment": "apps/v1", "Job": "batch/v1", "PodDisruptionBudget": "policy/v1", "Service": "v1"}
    assert manifest["apiVersion"] == kinds[manifest["kind"]]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    if manifest["kind"] == "Service":
        pods = [each["spec"]["template"] for _, each in manifests() if "template" in each["spec"]]
        (pod,) = (each for each in pods if manifest["spec"]["selector"].items() <= each["metadata"]["labels"].items())
        named = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= named
    if "template" not in manifest["spec"]:
        return
    pod = manifest["spec"]["template"]
    if manifest["kind"] == "Deployment":
        assert manifest["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert manifest["spec"]["replicas"] >= 2
    volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
    for container in pod["spec"]["containers"]:
        assert container["name"]
        assert ":" in container["image"]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in ("readinessProbe", "livenessProbe") if ports else ():
            assert container[probe]["httpGet"]["port"] in ports
            assert container[probe]["httpGet"]["path"] in ("/readyz", "/healthz")
        environment = {each["name"]: each for each in container["env"]}
        assert_variables_exist(environment)
        assert all(("value" in each) != ("valueFrom" in each) for each in environment.values())
        assert all(isinstance(each.get("value", ""), str) for each in environment.values())
        Settings.build({name: each["value"] for name, each in environment.items() if "value" in each})
        assert_command_exists(container.get("command", []))
        exit_timeout = float(environment.get("ATHINA_EXIT_TIMEOUT", {"value": "2"})["value"])
        assert pod["spec"].get("terminationGracePeriodSeconds", 30) > exit_timeout


def test_only_workers_get_athinas_key() -> None:
    with_key = {name.partition(":")[0] for name, manifest in manifests() if "ATHINA_API_KEY" in str(manifest)}
    assert with_key == {"workers.yaml"}


def test_the_compose_file_defines_all_that_it_uses() -> None:
    compose = yaml.safe_load((FLEET / "compose.yaml").read_text())
    services = compose["services"]
    for service in services.values():
        assert ":" in service["image"]
        assert set(service.get("depends_on", ())) <= services.keys()
        assert set(service.get("networks", ())) <= compose["networks"].keys()
        named = {volume.partition(":")[0] for volume in service.get("volumes", ()) if not volume.startswith(".")}
        assert named <= compose["volumes"].keys()
        assert {each["source"] for each in service.get("configs", ())} <= compose["configs"].keys()
        assert_variables_exist(service.get("environment", {}))
        assert_command_exists(service["command"])
    relay = services["worker"]["environment"]["ATHINA_RELAY"]
    assert Address.parse(relay).servers == tuple(f"nats://nats-{number}:4222" for number in range(3))
