"""An engine process that has the detectors and the segmentation network of `finders.py`."""

from __future__ import annotations

from app.engine.remote.__main__ import main
from models.predictors import loading
from tests.app.finders import finders_from_version

if __name__ == "__main__":
    loading.load_version = finders_from_version()
    main()
