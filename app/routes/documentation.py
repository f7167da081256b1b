"""Swagger UI from the assets of the package `fastapi-offline`: no CDN, so it works without a network.

No ReDoc: its bundle fetches a logo from its maker's server.
"""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

ASSETS_PATH = "/docs-assets"
_UI_PARAMETERS = {"tryItOutEnabled": True, "displayRequestDuration": True, "validatorUrl": None, "docExpansion": "list"}
# the page starts itself with an inline script, draws with inline styles and shows images it received as blobs;
# nothing may come from elsewhere
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:"
)

router = APIRouter(include_in_schema=False)


def mount_assets(app: FastAPI) -> None:
    """Serves the scripts and styles that the pages load."""
    app.mount(ASSETS_PATH, StaticFiles(directory=Path(str(files("fastapi_offline") / "static"))), name="docs-assets")


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    # the first one takes half a second to make: not on the event loop
    document = await asyncio.to_thread(request.app.openapi)
    root_path = _root_path(request)
    return JSONResponse({**document, "servers": [{"url": root_path}]} if root_path else document)


@router.get("/docs")
async def swagger_ui(request: Request) -> HTMLResponse:
    root_path = _root_path(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root_path}/openapi.json",
        title="Fovea",
        swagger_js_url=f"{root_path}{ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{root_path}{ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{root_path}{ASSETS_PATH}/favicon.png",
        swagger_ui_parameters=_UI_PARAMETERS,
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def _root_path(request: Request) -> str:
    """The prefix that a proxy has taken off the path, and that a browser has to put before it."""
    root_path: str = request.scope.get("root_path", "")
    return root_path
