"""From a complete run to a model version in the registry, and perhaps into production. No torch here."""

from __future__ import annotations

from datetime import datetime

from models.errors import UnknownAlias, UnknownModel
from models.manifest import ManifestDraft
from models.store.registry import PRODUCTION, ModelVersion, Registry
from workers.configs.evaluate import ResolvedEvaluate
from workers.jobs.job import JobResult
from workers.run_directory import RunConfig, RunDirectory, RunResult


def publish(run: RunDirectory, config: RunConfig, result: RunResult, registry: Registry, *, now: datetime) -> JobResult:
    """Publishes the best weights and promotes them if the job says so. Doing it twice publishes once.

    Raises what Registry.publish_file raises.
    """
    if isinstance(config.job, ResolvedEvaluate):
        return _evaluated(config.job, result)
    job = config.fine_tune
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
    promoted, why = _promote(version, config, result, registry)
    return JobResult(
        model=job.publish_as,
        version=version.manifest.version,
        metrics=result.metrics,
        promoted=promoted,
        promotion=why,
    )


def _evaluated(job: ResolvedEvaluate, result: RunResult) -> JobResult:
    name, _, version = job.model.partition("/")
    return JobResult(model=name, version=int(version) if version else None, metrics=result.metrics)


def _promote(version: ModelVersion, config: RunConfig, result: RunResult, registry: Registry) -> tuple[bool, str]:
    name, new = config.fine_tune.publish_as, version.manifest.version
    present = production_version(registry, name)
    if present == new:
        return True, f"Version {new} is in production."
    wanted, why = _is_promoted(present, config, result)
    if wanted:
        registry.set_alias(name, PRODUCTION, new)
    return wanted, why


def _is_promoted(present: int | None, config: RunConfig, result: RunResult) -> tuple[bool, str]:
    promote = config.fine_tune.promote
    if promote == "never":
        return False, "The job said `promote: never`."
    if promote == "always":
        return True, "The job said `promote: always`."
    if present is None:
        return True, "It is the first version in production."
    reference, metric = f"{config.fine_tune.publish_as}/{present}", result.decisive_metric
    comparison = result.comparison
    if comparison is None or comparison.reference != reference or metric not in comparison.metrics:
        reason = comparison.reason if comparison and comparison.reason else "production changed while the job ran"
        return False, f"It could not be compared with {reference}: {reason}."
    old, new = comparison.metrics[metric], result.metrics[metric]
    words = f"{metric} {new:.4f} against {old:.4f} of {reference} on the same validation split"
    return (True, f"It is better: {words}.") if new > old else (False, f"It is not better: {words}.")


def production_version(registry: Registry, name: str) -> int | None:
    """The version that the alias `production` points at, if there is one."""
    try:
        return registry.aliases(name).get(PRODUCTION)
    except (UnknownModel, UnknownAlias):
        return None
