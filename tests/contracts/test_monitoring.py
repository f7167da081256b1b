"""The dashboard, the alerts and docs/monitoring.md speak of metrics that there are, by their right labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from app.engine.model_source import ModelSource
from app.metrics.instruments import Instruments
from app.metrics.job_families import JobFamilies
from models.predictor import AnyPredictor
from tests.app.exposed import Exposed
from tests.workers.jobs_builders import a_job
from workers.jobs.job import JobProgress, JobStatus
from workers.jobs.store import JobStatistics
from workers.jobs.tally import BOUNDS_S, EndedJobs

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/fovea.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
PAGE = (PROJECT / "docs/monitoring.md").read_text()
OF_PROMETHEUS = {"job", "instance", "le"}  # labels that are not Fovea's to give

SELECTOR = re.compile(r"\b(fovea_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")


def load() -> AnyPredictor:
    raise NotImplementedError


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    """Every metric there is, each with a sample; the gauges of a GPU too."""
    instruments = Instruments(directory=None)
    source = ModelSource(name="m", version=1, architecture="a", digest="d", size_bytes=1, load=load)
    instruments.predictions.image_predicted(source, backend="eager", decode_s=0.1, finish_s=0.1)
    instruments.predictions.batch_predicted(source, backend="eager", queue_s=[0.1], inference_s=0.1)
    instruments.predictions.request_ended("m", source, outcome="ok", images=1, seconds=0.1, backend="eager")
    instruments.http_requests.count("GET", "/healthz", 200)
    gauges = instruments.gauges
    for gauge in (gauges._device_used, gauges._device_total, gauges._device_reserved):
        gauge.labels("cuda:0").set(1)
    gauges._model_memory.labels("m", "1").set(1)
    gauges._build.labels("0").set(1)
    text = generate_latest(instruments.registry) + generate_latest(JobFamilies(statistics()))
    return Exposed.read(text.decode())


def statistics() -> JobStatistics:
    progress = JobProgress(images_per_s=1.0)
    running = a_job(
        status=JobStatus.RUNNING, progress=progress, metrics={"val/loss": 1.0}, started_at=datetime.now(UTC)
    )
    ended = EndedJobs(
        type="fine_tune", status=JobStatus.FAILED, count=1, runs_by_duration=(1,) + (0,) * len(BOUNDS_S), run_s=1.0
    )
    return JobStatistics(queue_depth=0, counts={}, ended=[ended], running=[running])


def queries() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"dashboard: {panel['title']} {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield f"dashboard: ${variable['name']}", variable["definition"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield f"alert: {rule['alert']}", rule["expr"]


@pytest.mark.parametrize(("place", "query"), list(queries()), ids=lambda text: str(text)[:40])
def test_query_asks_for_metrics_and_labels_that_there_are(exposed: Exposed, place: str, query: str) -> None:
    asked = SELECTOR.findall(query)
    assert asked or 'up{job="fovea"}' in query, place
    known: set[str] = set(OF_PROMETHEUS)
    for name, selector in asked:
        assert name in exposed.labels, f"{place}: there is no {name}"
        known |= exposed.labels[name]
        assert set(re.findall(r"(\w+)\s*[=!]~?", selector)) <= exposed.labels[name], f"{place}: {selector}"
    for grouping in GROUPING.findall(query):
        assert {label.strip() for label in grouping.split(",")} <= known, f"{place}: by ({grouping})"


def test_every_metric_is_in_the_documentation_and_nothing_else(exposed: Exposed) -> None:
    families = {
        name + "_total" if f"{name}_total" in exposed.labels else name for name in map(name_of, exposed.families)
    }
    written = set(re.findall(r"\bfovea_\w+", PAGE))
    assert families <= written, f"docs/monitoring.md does not tell of {families - written}"
    assert written <= families | exposed.labels.keys(), "docs/monitoring.md tells of a metric that is not there"


def name_of(family: Any) -> str:
    name: str = family.name
    return name


def test_every_alert_is_in_the_documentation() -> None:
    alerts = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert alerts == set(re.findall(r"\bFovea[A-Z]\w+", PAGE))


def test_panels_show_something_in_a_place_of_their_own() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not covered & places, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        places |= covered
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_files_name_each_other_rightly() -> None:
    """The data source of the dashboard is the provisioned one, which is the service that scrapes the API's port."""
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    sources = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())}
    assert sources == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert compose["prometheus"]["ports"][0].endswith(":9090")
    (provider,) = yaml.safe_load((provisioning / "dashboards/fovea.yml").read_text())["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in compose["grafana"]["volumes"]
    (scrape,) = PROMETHEUS["scrape_configs"]
    (found,) = scrape["dns_sd_configs"]
    assert (scrape["job_name"], found["names"]) == ("fovea", ["api"])
    assert compose["api"]["environment"]["FOVEA_PORT"] == str(found["port"])
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
