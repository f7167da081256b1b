"""Dependencies that routes declare in their signatures."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Header, Query, Request

from app.engine.engine import Engine
from app.http.idempotency import Idempotency
from app.http.urgency import Urgency
from app.services import Services
from app.settings import ApiSettings
from models.store.registry import Registry
from workers.datasets.store import DatasetStore
from workers.jobs.store import JobStore


async def get_services(request: Request) -> Services:
    """The services that the lifespan opened."""
    return cast("Services", request.app.state.services)


async def get_registry(services: ServicesDep) -> Registry:
    return services.registry


async def get_datasets(services: ServicesDep) -> DatasetStore:
    return services.datasets


async def get_jobs(services: ServicesDep) -> JobStore:
    return services.jobs


async def get_engine(services: ServicesDep) -> Engine:
    return services.engine


async def get_settings(services: ServicesDep) -> ApiSettings:
    return services.settings


async def get_idempotency(
    request: Request,
    services: ServicesDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Any unique text, for instance a UUID. If the same key and payload come again within a day, "
            "the first answer is repeated and nothing is created twice.",
        ),
    ] = None,
) -> Idempotency:
    """The handling of the request's Idempotency-Key, for its method and path."""
    return Idempotency(services.idempotency, scope=f"{request.method} {request.url.path}", key=idempotency_key)


async def get_urgency(request: Request) -> Urgency:
    """The deadline and priority of a prediction, as `RefusalMiddleware` has parsed them."""
    urgency: Urgency = request.state.urgency
    return urgency


ServicesDep = Annotated[Services, Depends(get_services)]
RegistryDep = Annotated[Registry, Depends(get_registry)]
DatasetsDep = Annotated[DatasetStore, Depends(get_datasets)]
JobsDep = Annotated[JobStore, Depends(get_jobs)]
EngineDep = Annotated[Engine, Depends(get_engine)]
SettingsDep = Annotated[ApiSettings, Depends(get_settings)]
UrgencyDep = Annotated[Urgency, Depends(get_urgency)]
IdempotencyDep = Annotated[Idempotency, Depends(get_idempotency)]

LimitQuery = Annotated[int, Query(ge=1, le=500, description="Most entries of this page.")]
AfterQuery = Annotated[
    str | None, Query(max_length=255, description="`next` of the previous page; leave it out for the first page.")
]
