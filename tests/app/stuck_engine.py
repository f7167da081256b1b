"""`python -m tests.app.stuck_engine MARK ...`: an engine process whose batch never ends, unless one was there before.

MARK: a file that the first of them makes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from app.engine.remote.__main__ import main
from models.predictors.classification import Classifier, ClassSelection


def stuck_if_first(mark: Path) -> None:
    predict = Classifier.predict_prepared

    def predict_prepared(self: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]) -> object:
        if threading.current_thread().name.startswith("infer"):  # the warm-up is another thread's
            try:
                mark.touch(exist_ok=False)
                threading.Event().wait()
            except FileExistsError:
                pass
        return predict(self, batch, selections)

    Classifier.predict_prepared = predict_prepared  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    stuck_if_first(Path(sys.argv.pop(1)))
    with patch("app.engine.setup._LONGEST_BATCH_S", 2.0):
        main()
