"""The page at `/`: what runs here, and where to go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app.dependencies import ServicesDep
from app.routes.health import checks_of, system_of
from app.schemas.system import System
from app.services import Services
from models.errors import ModelsError
from models.manifest import Manifest
from models.store.registry import PRODUCTION, Registry
from workers.errors import StoreUnavailable
from workers.jobs.job import Job

_PAGE: Final = files("app.pages").joinpath("start.html").read_text(encoding="utf-8")
_MOST_MODELS = 20
_MOST_JOBS = 5
_DECISIVE = {"val/top1": "top-1", "val/map": "mAP", "val/miou": "mean IoU"}
_GIBIBYTE = 1024**3

router = APIRouter(include_in_schema=False)


def _policy() -> str:
    """Nothing but the page's own style sheet is loaded or run."""
    style = re.search("<style>(.*)</style>", _PAGE, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_HEADERS: Final = {"Content-Security-Policy": _policy(), "Cache-Control": "no-store"}


@router.get("/")
async def start_page(request: Request, services: ServicesDep) -> HTMLResponse:
    base = str(request.base_url).rstrip("/")
    page = await asyncio.to_thread(_page, services, base=base, root=request.scope.get("root_path", ""))
    return HTMLResponse(page, headers=_HEADERS)


def _page(services: Services, *, base: str, root: str) -> str:
    system = system_of(services)
    return Template(_PAGE).substitute(
        base=escape(base),
        root=escape(root),
        version=escape(system.version),
        status=_status(services),
        facts=_facts(system),
        models=_models(services.registry),
        jobs=_jobs(services),
    )


def _status(services: Services) -> str:
    failed = {name: check.detail for name, check in checks_of(services).items() if not check.ok}
    if not failed:
        return '<span class="good">● ready</span>'
    words = "; ".join(f"{name}: {detail}" for name, detail in failed.items())
    return f'<span class="bad">▲ not ready</span> {escape(words)}'


def _facts(system: System) -> str:
    engine = system.engine
    device = next((each.description for each in system.devices if each.name == engine.device), "")
    loaded = ", ".join(model.reference for model in engine.loaded_models) or "none: a model loads when it is asked"
    facts = {
        "Device": f"{engine.device}: {device}" if device else engine.device,
        "Loaded models": loaded,
        "Pending images": f"{engine.pending_images} of {engine.max_pending_images}",
        "Waiting jobs": "unknown: Redis is away" if system.queue.depth is None else str(system.queue.depth),
        "Free disk": f"{system.disk.free_bytes / _GIBIBYTE:,.0f} of {system.disk.total_bytes / _GIBIBYTE:,.0f} GiB",
        "Running since": f"{system.started_at:%Y-%m-%d %H:%M} UTC",
    }
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())


def _models(registry: Registry) -> str:
    rows = []
    names = registry.names()
    for name in names:
        try:
            version = registry.aliases(name).get(PRODUCTION)
            manifest = None if version is None else registry.get(name, version).manifest
        except ModelsError:  # deleted or damaged meanwhile: the API says which
            continue
        if manifest is not None:
            rows.append((f"{name} v{manifest.version}", manifest.task, _score(manifest), manifest.architecture))
        if len(rows) == _MOST_MODELS:
            break
    if not rows:
        return '<p class="quiet">None yet. The three steps below make one.</p>'
    table = _table(("model", "task", "score", "architecture"), rows)
    if not (more := len(names) - len(rows)):
        return table
    return f'{table}<p class="quiet">{more} more, also without production: <code>fovea models list</code></p>'


def _score(manifest: Manifest) -> str:
    found = ((words, manifest.metrics[key]) for key, words in _DECISIVE.items() if key in manifest.metrics)
    return next((f"{words} {value:.3f}" for words, value in found), "")


def _jobs(services: Services) -> str:
    try:
        newest = services.jobs.page(limit=_MOST_JOBS).jobs
    except StoreUnavailable:
        return '<p class="bad">Redis is away. Predictions work; jobs are shown again when it is back.</p>'
    if not newest:
        return '<p class="quiet">None yet.</p>'
    rows = [(job.config.publish_as, job.status, _progress(job), f"{job.created_at:%Y-%m-%d %H:%M}") for job in newest]
    return _table(("job", "status", "progress", "made (UTC)"), rows)


def _progress(job: Job) -> str:
    if job.error is not None:
        return job.error.message
    if job.best is not None:
        metric = _DECISIVE.get(job.best.metric, job.best.metric)
        return f"epoch {job.progress.epoch} of {job.progress.epochs}; best {metric} {job.best.value:.3f}"
    return f"epoch {job.progress.epoch} of {job.progress.epochs}" if job.progress.epochs else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_line("th", head), *(_line("td", row) for row in rows)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
