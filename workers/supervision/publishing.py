"""Publishes a complete run as a model version, and promotes it if the job asks for it. Needs no torch."""

from __future__ import annotations

from datetime import datetime

from models.errors import UnknownAlias, UnknownModel
from models.manifest import ManifestDraft
from models.store.registry import PRODUCTION, ModelVersion, Registry
from workers.configs.fine_tune import ResolvedFineTune
from workers.configs.selection import is_better, promotion_metric
from workers.jobs.job import JobResult
from workers.run_directory import RunConfig, RunDirectory, RunResult


def publish(run: RunDirectory, config: RunConfig, result: RunResult, registry: Registry, *, now: datetime) -> JobResult:
    """Publishes the best weights of a run, and promotes them if the job asks for it.

    A second call for the same job does not publish again. Raises the errors of Registry.publish_file.
    """
    job = config.job
    if not isinstance(job, ResolvedFineTune):
        name, _, number = job.base.partition("/")
        return JobResult(
            model=name, version=int(number) if number else None, metrics=result.metrics, weakness=result.weakness
        )
    draft = ManifestDraft(
        task=job.task,
        architecture=job.architecture,
        options=job.options,
        categories=job.categories,
        preset=job.preset,
        metrics=result.metrics,
        dataset=job.dataset,
        base=job.base,
        strategy=job.strategy,
        config=job.model_dump(mode="json"),
        seed=job.hyperparameters.seed,
        job_id=config.job_id,
        device=result.device,
        libraries=result.libraries,
    )
    version = registry.publish_file(job.publish_as, run.best_weights, draft, report_dir=run.report, now=now)
    promoted, reason = _promote(version, config, result, registry)
    return JobResult(
        model=job.publish_as,
        version=version.manifest.version,
        metrics=result.metrics,
        promoted=promoted,
        promotion=reason,
        weakness=result.weakness,
    )


def _promote(version: ModelVersion, config: RunConfig, result: RunResult, registry: Registry) -> tuple[bool, str]:
    name, new = config.fine_tune.publish_as, version.manifest.version
    current = production_version(registry, name)
    if current == new:
        return True, f"Version {new} is in production."
    promoted, reason = _should_promote(current, config, result)
    if promoted:
        registry.set_alias(name, PRODUCTION, new)
    return promoted, reason


def _should_promote(current: int | None, config: RunConfig, result: RunResult) -> tuple[bool, str]:
    """Returns the decision and the reason for it. current: the version in production, or None."""
    promote = config.fine_tune.promote
    if promote == "never":
        return False, "The job has `promote: never`."
    if promote == "always":
        return True, "The job has `promote: always`."
    if result.weakness is not None:
        return False, f"{result.weakness} Promote it by hand if you want it all the same."
    if current is None:
        return True, "It is the first version in production."
    reference = f"{config.fine_tune.publish_as}/{current}"
    metric = promotion_metric(config.fine_tune.task, result.decisive_metric)
    comparison = result.comparison
    if comparison is None or comparison.reference != reference or metric not in comparison.metrics:
        reason = comparison.reason if comparison and comparison.reason else "production changed while the job ran"
        return False, f"It could not be compared with {reference}: {reason}."
    old, new = comparison.metrics[metric], result.metrics[metric]
    values = f"{metric} is {new:.4f}, and {old:.4f} for {reference} on the same validation split"
    return (
        (True, f"It is better: {values}.") if is_better(metric, new, old) else (False, f"It is not better: {values}.")
    )


def production_version(registry: Registry, name: str) -> int | None:
    """Returns the version that the alias `production` points to, or None."""
    try:
        return registry.aliases(name).get(PRODUCTION)
    except (UnknownModel, UnknownAlias):
        return None
