"""Metrics of jobs, read from the job store at every scrape, so that every process reports all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from workers.jobs.job import Job, JobStatus, JobType
from workers.jobs.store import JobStatistics
from workers.jobs.tally import BOUNDS_S, EndedJobs

_KIND: Final = ("type", "status")
_RUNNING: Final = ("job_id", "model")  # `job` is Prometheus's own label for what it scraped


class JobFamilies(Collector):
    """The metrics of one reading of the job store; None if the reading failed."""

    def __init__(self, statistics: JobStatistics | None) -> None:
        self._statistics = statistics

    def collect(self) -> Iterable[Metric]:
        is_up = GaugeMetricFamily(
            "fovea_job_store_up", "1 if Redis answered in time; otherwise there are no metrics of jobs."
        )
        is_up.add_metric((), self._statistics is not None)
        yield is_up
        if self._statistics is not None:
            yield _queue_depth(self._statistics)
            yield _jobs(self._statistics)
            yield from _ended(self._statistics.ended)
            yield from _running(self._statistics.running)


def _queue_depth(statistics: JobStatistics) -> Metric:
    family = GaugeMetricFamily("fovea_job_queue_depth", "Messages of jobs that wait for a worker.")
    family.add_metric((), statistics.queue_depth)
    return family


def _jobs(statistics: JobStatistics) -> Metric:
    family = GaugeMetricFamily("fovea_jobs", "Jobs by their current status.", labels=_KIND)
    for job_type in get_args(JobType):
        for status in JobStatus:
            family.add_metric((job_type, status.value), statistics.counts.get((job_type, status), 0))
    return family


def _ended(ended: Iterable[EndedJobs]) -> Iterator[Metric]:
    count = CounterMetricFamily("fovea_jobs_ended", "Jobs that ended, including deleted ones.", labels=_KIND)
    duration = HistogramMetricFamily("fovea_job_seconds", "Seconds from a job's first start to its end.", labels=_KIND)
    for each in ended:
        labels = (each.type, each.status.value)
        count.add_metric(labels, each.count)
        bounds = [*(str(float(bound_s)) for bound_s in BOUNDS_S), "+Inf"]
        duration.add_metric(labels, list(zip(bounds, accumulate(each.runs_by_duration), strict=True)), each.run_s)
    yield count
    yield duration


def _running(jobs: Iterable[Job]) -> Iterator[Metric]:
    progress = GaugeMetricFamily("fovea_job_progress_ratio", "Progress of a running job, 0 to 1.", labels=_RUNNING)
    speed = GaugeMetricFamily(
        "fovea_job_images_per_second", "Training images per second of a running job.", labels=_RUNNING
    )
    newest = GaugeMetricFamily(
        "fovea_job_metric", "Newest value of a running job's metric: val/loss, ...", labels=(*_RUNNING, "metric")
    )
    for job in jobs:
        labels = (job.id, job.config.publish_as)
        progress.add_metric(labels, job.progress.fraction)
        if job.progress.images_per_s is not None:
            speed.add_metric(labels, job.progress.images_per_s)
        for name, value in job.metrics.items():
            if name.count("/") == 1:  # longer names belong to one category, of which there may be a thousand
                newest.add_metric((*labels, name), value)
    yield from (progress, speed, newest)
