"""Models: list, look, promote, download, bring your own, delete."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import IO, Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.dependencies import AfterQuery, EngineDep, IdempotencyDep, JobsDep, LimitQuery, RegistryDep, ServicesDep
from app.errors import InvalidValue
from app.http.documented_answers import file_part, form_body, json_answer, problems
from app.http.downloads import Download, file_download
from app.http.problems import errors_of
from app.http.refusals import BodyRule, takes_body
from app.http.uploads import Form
from app.routes.paging import page_of_names
from app.routes.runs import REPORT_FILE, report_file, report_files
from app.routes.uploading import Upload, answer_upload
from app.schemas.models import Alias, AliasTarget, Model, ModelPage, ModelVersion, UploadedManifest
from app.services import Services
from models.architectures.catalog import get_architecture
from models.backends.exports import Exports
from models.errors import CorruptVersion, UnknownArchitecture, UnknownModel, VersionInUse
from models.manifest import Manifest, ManifestDraft
from models.store.library_versions import library_versions
from models.store.own_weights import pth_format, publish_own_weights, write_pth
from models.store.registry import ModelVersion as RegisteredVersion
from models.store.registry import Registry

log = logging.getLogger(__name__)

NO_CATEGORY = "N/A"  # of indices that mean nothing: COCO has ten

router = APIRouter(prefix="/v1/models", tags=["Models"])


_WEIGHTS = Upload(
    what="A state_dict",
    file_field="state_dict",
    example="""-F state_dict=@weights.pth -F 'manifest={"architecture": …}'""",
)


@router.get("", response_model=ModelPage, summary="List models", responses=problems(422))
def list_models(registry: RegistryDep, limit: LimitQuery = 20, after: AfterQuery = None) -> ModelPage:
    """By name, each with its versions, aliases and newest manifest."""
    page = page_of_names(registry.names(), limit=limit, after=after)
    return ModelPage(data=_readable(registry, page.names), has_more=page.has_more, next=page.next)


@router.get("/{name}", response_model=Model, summary="Show a model", responses=problems(404, 422))
def show_model(name: str, registry: RegistryDep) -> Model:
    """Its versions, its aliases, and the manifest of the newest version."""
    return _model(registry, name)


@router.get(
    "/{name}/versions/{version}",
    response_model=ModelVersion,
    summary="Show a version of a model",
    responses=problems(404, 422),
)
def show_version(name: str, version: int, registry: RegistryDep) -> ModelVersion:
    """Where it comes from, how good it is, what is in its report, and what was built from it to serve faster."""
    found = registry.get(name, version)
    aliases = [alias for alias, target in registry.aliases(name).items() if target == version]
    return ModelVersion(
        manifest=found.manifest,
        aliases=aliases,
        report=[file.name for file in report_files(found.report_dir)],
        exports=Exports(found.exports_dir).reports(),
    )


@router.get(
    "/{name}/versions/{version}/report/{file:path}",
    response_class=Response,
    summary="One file of a model's report",
    responses={**REPORT_FILE, **problems(404, 416, 422)},
)
def version_report_file(request: Request, name: str, version: int, file: str, registry: RegistryDep) -> Download:
    """`report.json`, `curves.png`, `confusion.png`, `mistakes.png`."""
    return report_file(request, registry.get(name, version).report_dir, file)


@router.get(
    "/{name}/versions/{version}/state_dict",
    response_class=Response,
    summary="Download a version's weights",
    responses={
        200: {"content": {"application/octet-stream": {"schema": file_part("The state_dict.")}}},
        **problems(404, 416, 422, 507),
    },
)
def download_state_dict(
    request: Request,
    name: str,
    version: int,
    services: ServicesDep,
    format: Annotated[  # noqa: A002 -- the query parameter's name
        Literal["safetensors", "pth"], Query(description="`pth` is what torch.load(..., weights_only=True) reads.")
    ] = "safetensors",
) -> Download:
    """The state_dict, as it was published. Interrupted downloads continue with a `Range` header."""
    found = services.registry.get(name, version)
    is_pth = format == "pth"
    etag = found.manifest.sha256
    if is_pth:
        etag += f"-{pth_format()}"
    return file_download(
        request,
        _as_pth(services, found) if is_pth else found.state_dict_path.open("rb"),
        media_type="application/octet-stream",
        etag=etag,
        file_name=f"{name}-{version}.{format}",
    )


@router.post(
    "/{name}/versions",
    response_model=Manifest,
    status_code=201,
    summary="Bring your own weights",
    openapi_extra=form_body(
        {
            "state_dict": file_part("A safetensors file, or a `.pth` that holds tensors only."),
            "manifest": {
                "type": "string",
                "description": "What the weights are, as JSON: `architecture`, `categories` and, if it is not the "
                "architecture's own, `preset`.",
                "example": '{"architecture": "resnet18", "categories": ["ant", "bee"]}',
            },
        },
        required=["state_dict", "manifest"],
    ),
    responses=problems(400, 404, 409, 413, 415, 422, 503, 507),
)
@takes_body(BodyRule(limit_bytes=lambda settings: settings.max_weights_bytes))
async def post_version(request: Request, name: str, services: ServicesDep, idempotency: IdempotencyDep) -> Response:
    """Publishes a state_dict that was trained elsewhere as the next version of the model.

    Its keys and shapes are checked against the architecture: every one that is missing, unexpected or of another shape
    is listed. Pickles that hold anything but tensors are refused, and nothing of them is run.
    """
    services.registry.check_new_name(name)

    def make(services: Services, form: Form) -> Response:
        manifest = _publish(services, name, form)
        services.engine.models.forget_lookups()
        location = f"{request.url.path}/{manifest.version}"
        return json_answer(manifest, status=201, headers={"Location": location})

    return await answer_upload(_WEIGHTS, make, request=request, services=services, idempotency=idempotency)


@router.delete(
    "/{name}/versions/{version}",
    status_code=204,
    summary="Delete a version of a model",
    responses=problems(404, 409, 422, 503),
)
def delete_version(name: str, version: int, registry: RegistryDep, jobs: JobsDep, engine: EngineDep) -> None:
    """Frees its disk; 409 while an alias points at it or a job goes on from it. The number is not given again."""
    waiting = jobs.jobs_using_model(f"{name}/{version}")
    if waiting:
        hint = "Wait until they have ended, or cancel them."
        raise VersionInUse(f"{name}/{version} is what {', '.join(waiting[:5])} will go on from.", hint=hint)
    registry.delete(name, version)
    engine.models.forget_lookups()


@router.put("/{name}/aliases/{alias}", response_model=Alias, summary="Point an alias", responses=problems(404, 422))
async def put_alias(name: str, alias: str, target: AliasTarget, registry: RegistryDep, engine: EngineDep) -> Alias:
    """Promotes or rolls back: `production` is what the bare name means. Live with the next request.

    If the model is in use, the version is loaded before the alias moves, so that nobody waits for it.
    """
    await engine.models.load_beside(name, target.version)
    previous = await asyncio.to_thread(registry.set_alias, name, alias, target.version)
    engine.models.forget_lookups()
    return Alias(model=name, alias=alias, version=target.version, previous=previous)


@router.delete("/{name}/aliases/{alias}", status_code=204, summary="Delete an alias", responses=problems(404, 422))
def delete_alias(name: str, alias: str, registry: RegistryDep, engine: EngineDep) -> None:
    """The version it pointed at stays."""
    registry.delete_alias(name, alias)
    engine.models.forget_lookups()


def _model(registry: Registry, name: str) -> Model:
    """Raises CorruptVersion if none of its versions can be read."""
    versions = registry.versions(name)
    for version in reversed(versions):
        try:
            latest = registry.get(name, version).manifest
        except CorruptVersion:
            if version == versions[0]:
                raise
            continue
        break
    return Model(name=name, versions=versions, aliases=registry.aliases(name), latest=latest)


def _readable(registry: Registry, names: Iterable[str]) -> list[Model]:
    """The models of which anything can be read: one damaged file does not hide all the others."""
    found = []
    for name in names:
        try:
            found.append(_model(registry, name))
        except (CorruptVersion, UnknownModel) as error:
            log.warning("%s is left out of the list: %s", name, error)
    return found


def _as_pth(services: Services, version: RegisteredVersion) -> IO[bytes]:
    """The version's weights as torch.save writes them, in a file without a name: it goes when it is closed."""
    path = services.spool.new_path(".pth")
    file = path.open("w+b")
    path.unlink()
    try:
        write_pth(services.registry, version, file)
    except BaseException:
        file.close()
        raise
    return file


def _publish(services: Services, name: str, form: Form) -> Manifest:
    file = form.one_file("state_dict")
    assert file.path is not None
    draft = _draft(_manifest(form))
    return publish_own_weights(services.registry, name, file.path, draft, now=services.now()).manifest


def _draft(said: UploadedManifest) -> ManifestDraft:
    """The manifest, with the architecture's own preset, task and options where it names none. Raises InvalidValue."""
    try:
        architecture = get_architecture(said.architecture)
    except UnknownArchitecture as error:
        raise InvalidValue(
            str(error), field="manifest.architecture", value=said.architecture, hint=error.hint
        ) from error
    if said.task not in (None, *architecture.tasks):
        valid = ", ".join(architecture.tasks)
        raise InvalidValue(
            f"{said.architecture} is not made for {said.task}", field="manifest.task", value=said.task, valid=valid
        )
    return ManifestDraft(
        task=said.task or architecture.tasks[0],
        architecture=said.architecture,
        options=architecture.complete_options(said.options),
        categories=said.categories,
        preset=said.preset or architecture.preset,
        metrics=said.metrics,
        description=said.description,
        origin="uploaded",
        libraries=library_versions(),
    )


def _manifest(form: Form) -> UploadedManifest:
    text = form.fields.get("manifest")
    if text is None:
        example = '{"architecture": "resnet18", "categories": ["ant", "bee"]}'
        raise InvalidValue(
            "The form has no field 'manifest'", field="manifest", valid="JSON", hint=f"For instance: {example}"
        )
    try:
        said = UploadedManifest.model_validate_json(text)
    except ValidationError as error:
        raise errors_of(error, where="body", within="manifest") from error
    repeated = sorted(label for label, count in Counter(said.categories).items() if count > 1 and label != NO_CATEGORY)
    if repeated:
        raise InvalidValue(
            f"Categories given twice: {', '.join(repeated[:10])}",
            field="manifest.categories",
            valid="a different label each",
        )
    return said
