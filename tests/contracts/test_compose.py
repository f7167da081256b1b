"""What docker-compose.yml, docker-compose.gpu.yml, Dockerfile and .dockerignore promise to those who run Fovea."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import ApiSettings
from tests import children
from workers.settings import WorkerSettings
from workers.supervision.supervisor import TrainerOptions

PROJECT = Path(__file__).resolve().parents[2]
CONTAINER_FILES = ("Dockerfile", ".dockerignore", "docker-compose.yml", "docker-compose.gpu.yml")
OWN = ("api", "worker")
ALWAYS = ("redis", *OWN)
MONITORING = ("prometheus", "grafana")
ALL = (*ALWAYS, *MONITORING)
UNITS_S = {"s": 1, "m": 60, "h": 3600}

# Instructions of the Dockerfile as (name, rest), continued lines joined, comments left out.
Instructions = list[tuple[str, str]]


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((PROJECT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose: Any) -> Any:
    return compose["services"]


@pytest.fixture(scope="module")
def dockerfile() -> Instructions:
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_the_services_are_redis_and_two_commands_of_one_image(services: Any) -> None:
    assert sorted(services) == sorted(ALL)
    assert [name for name in services if "profiles" not in services[name]] == list(ALWAYS)
    assert services["api"]["image"] == services["worker"]["image"]
    assert [name for name in services if "build" in services[name]] == ["api"], "two would build the same twice"
    assert services["worker"]["pull_policy"] == "never", "no registry has it"
    assert services["api"]["command"] == ["fovea", "serve"]
    assert services["worker"]["command"] == ["fovea", "worker"]


def test_redis_appends_to_a_file_and_evicts_nothing(services: Any) -> None:
    command = shlex.join(services["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert services["redis"]["volumes"] == ["redis:/data"]


@pytest.mark.parametrize("name", OWN)
def test_redis_must_be_healthy_before_the_rest_starts(services: Any, name: str) -> None:
    assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_every_service_has_a_health_check(services: Any, dockerfile: Instructions) -> None:
    assert services["redis"]["healthcheck"]["test"][0] == "CMD"
    for name in ("worker", *MONITORING):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    assert "healthcheck" not in services["api"], "the API's is the image's own"
    assert [name for name, _ in dockerfile].count("HEALTHCHECK") == 1


def test_health_check_of_the_worker_imports_no_torch(services: Any) -> None:
    *_, module = services["worker"]["healthcheck"]["test"]
    probe = f"import sys, {module}; assert 'torch' not in sys.modules"
    children.run([sys.executable, "-c", probe])


@pytest.mark.parametrize("name", ["redis", "worker", *MONITORING])
def test_words_of_a_health_check_hold_no_spaces(services: Any, name: str) -> None:
    """Podman before 5 splits them there again."""
    assert not any(" " in word for word in services[name]["healthcheck"]["test"])


@pytest.mark.parametrize("name", ALL)
def test_every_service_has_an_init_comes_back_and_stops_gracefully(services: Any, name: str) -> None:
    assert services[name]["init"] is True
    assert services[name]["restart"] == "unless-stopped"
    assert "stop_grace_period" in services[name]


def test_the_worker_has_time_to_hand_its_run_back(services: Any) -> None:
    cancel_grace_s = WorkerSettings.model_fields["cancel_grace_s"].default
    options = TrainerOptions(device="cpu", allow_download=False, cancel_grace_s=cancel_grace_s)
    longest_s = options.hand_back_grace_s + 2 * options.cancel_grace_s
    assert seconds(services["worker"]["stop_grace_period"]) > longest_s


@pytest.mark.parametrize("name", OWN)
def test_shared_memory_is_larger_than_the_default_of_64_megabytes(services: Any, name: str) -> None:
    assert re.fullmatch(r"\d+gb", services[name]["shm_size"])


@pytest.mark.parametrize("name", ALL)
def test_every_service_is_locked_down(services: Any, name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert name == "redis" or "cap_add" not in service


def test_only_the_api_has_a_port_and_only_on_loopback_unless_told(services: Any) -> None:
    assert [name for name in ALWAYS if "ports" in services[name]] == ["api"]
    assert services["api"]["ports"] == ["${FOVEA_HOST:-127.0.0.1}:${FOVEA_PORT:-8000}:8000"]
    for name in MONITORING:
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"]), "neither asks for a password"
    assert not any(service.get("network_mode") == "host" for service in services.values())


def test_state_is_in_named_volumes(compose: Any) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    state = [mount for mount in mounts if not mount.startswith("./")]
    assert {mount.partition(":")[0] for mount in state} == set(compose["volumes"]) == {"data", "redis", *MONITORING}


def test_what_comes_from_the_checkout_is_there_and_cannot_be_written(services: Any) -> None:
    for mount in (mount for service in services.values() for mount in service["volumes"] if mount.startswith("./")):
        source, _, mode = mount.split(":")
        assert mode == "ro"
        assert (PROJECT / source).is_dir()


@pytest.mark.parametrize("name", OWN)
def test_settings_come_from_dot_env_which_need_not_exist(services: Any, name: str) -> None:
    assert services[name]["env_file"] == [{"path": ".env", "required": False}]


@pytest.mark.parametrize("name", OWN)
def test_what_the_containers_decide_is_a_setting(services: Any, name: str) -> None:
    environment = services[name]["environment"]
    assert environment["FOVEA_HOME"] == "/data"
    assert "data:/data" in services[name]["volumes"]
    assert {variable.removeprefix("FOVEA_").lower() for variable in environment} <= set(ApiSettings.model_fields)


def test_the_gpu_file_adds_devices_and_nothing_else() -> None:
    overlay = yaml.safe_load((PROJECT / "docker-compose.gpu.yml").read_text())["services"]
    device = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    wanted = {"deploy": {"resources": {"reservations": {"devices": [device]}}}}
    assert overlay == {"api": wanted, "worker": wanted}


def test_the_image_runs_as_an_ordinary_user(dockerfile: Instructions) -> None:
    final_stage = dockerfile[max(place for place, (name, _) in enumerate(dockerfile) if name == "FROM") :]
    users = [rest for name, rest in final_stage if name == "USER"]
    assert users == ["10001:10001"], "a number, so that an orchestrator can tell that it is not root"


def test_dependencies_are_installed_before_any_code_is_copied(dockerfile: Instructions) -> None:
    installed = next(place for place, (_, rest) in enumerate(dockerfile) if "--requirements" in rest)
    copied = [rest.split()[:-1] for name, rest in dockerfile[:installed] if name == "COPY"]
    assert copied == [["pyproject.toml", "constraints.txt"]]
    assert "--constraint /src/constraints.txt" in dockerfile[installed][1]
    assert re.findall(r"--extra (\S+)", dockerfile[installed][1]) == ["int8"]


def test_commands_need_no_shell_and_no_curl(dockerfile: Instructions) -> None:
    commands = [rest for name, rest in dockerfile if name in {"CMD", "ENTRYPOINT", "HEALTHCHECK"}]
    for command in commands:
        words = json.loads(command[command.index("[") :])
        assert words[0] in {"python", "fovea"}


def test_the_build_sees_what_it_copies_and_nothing_else(dockerfile: Instructions) -> None:
    sources = {
        source
        for name, rest in dockerfile
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    first, *rules = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}]
    assert first == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == sources


def test_the_installer_is_the_one_of_the_makefile(dockerfile: Instructions) -> None:
    (version,) = re.findall(r"^UV_VERSION := (.+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert ("ARG", f"UV_VERSION={version}") in dockerfile


@pytest.mark.parametrize("name", CONTAINER_FILES)
def test_no_registry_or_package_index_is_named(name: str, dockerfile: Instructions, services: Any) -> None:
    text = (PROJECT / name).read_text()
    assert set(re.findall(r"\w+://[\w.-]+", text)) <= {"http://127.0.0.1", "redis://redis"}
    assert not re.search(r"index-url|index-strategy|find-links|trusted-host", text)
    images = [rest.split()[0] for kind, rest in dockerfile if kind == "FROM"]
    images += [services[name]["image"] for name in ALWAYS]
    assert not any("/" in image for image in images), "a host or an account is the operator's choice"


@pytest.mark.parametrize("name", MONITORING)
def test_monitoring_is_asked_for_and_of_one_version(services: Any, name: str) -> None:
    assert services[name]["profiles"] == ["monitoring"]
    assert re.fullmatch(rf"\w+/{name}:v?\d+\.\d+\.\d+", services[name]["image"]), "the maker's own, no host named"


def seconds(duration: str) -> int:
    """Of a duration as compose files write it, with one unit."""
    return int(duration[:-1]) * UNITS_S[duration[-1]]
