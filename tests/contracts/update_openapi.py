"""`python -m tests.contracts.update_openapi`: writes down what the API is now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app.main import create_app
from app.settings import ApiSettings

SNAPSHOT = Path(__file__).with_name("openapi.json")


def document_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without the version of Fovea."""
    document: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    document["info"].pop("version")
    return document


if __name__ == "__main__":
    document = document_of(create_app(ApiSettings(_env_file=None)))
    SNAPSHOT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
