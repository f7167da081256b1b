"""Gauges of a process: models, memory, pending images. They are set before they are read.

The gauges of replicas are summed: a model that two replicas hold counts twice, like its memory.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final, Literal

import torch
from prometheus_client import CollectorRegistry, Gauge

from app.engine.devices import describe_memory
from app.engine.engine import Engine
from app.metrics.predictions import Labels, PredictionMetrics
from app.version import fovea_version

_SUM: Final[Literal["livesum"]] = "livesum"  # over living processes
_MOST: Final[Literal["livemax"]] = "livemax"
_NEWEST: Final[Literal["livemostrecent"]] = "livemostrecent"  # equal in all processes


class ProcessGauges:
    """The gauges of one process."""

    def __init__(self, registry: CollectorRegistry | None, *, predictions: PredictionMetrics) -> None:
        """registry: None if the values are read from the files of many processes."""

        def gauge(
            name: str, words: str, *labels: str, mode: Literal["livesum", "livemax", "livemostrecent"] = _SUM
        ) -> Gauge:
            return Gauge(name, words, labels, registry=registry, multiprocess_mode=mode)

        self._predictions = predictions
        self._processes = gauge("fovea_processes", "API processes that answer.")
        self._build = gauge("fovea_build_info", "1 for the running version.", "version", mode=_NEWEST)
        self._resident = gauge("fovea_resident_memory_bytes", "Main memory of the API processes.")
        self._pending = gauge("fovea_pending_images", "Images accepted and not yet answered, tiles counted too.")
        self._most_pending = gauge("fovea_max_pending_images", "Limit of pending images; more are refused with 503.")
        self._busy = gauge(
            "fovea_device_busy_seconds",
            "Time since the device began its current batch; far above a batch's usual time it is stuck.",
            mode=_MOST,
        )
        self._loading = gauge(
            "fovea_model_load_seconds",
            "Time since the current load of a model began; other loads wait for it.",
            mode=_MOST,
        )
        self._loaded = gauge("fovea_loaded_models", "Models in memory.")
        self._model_memory = gauge(
            "fovea_model_memory_bytes", "Size of a loaded model's weights; 0 once it is unloaded.", "model", "version"
        )
        self._model_limit = gauge("fovea_model_memory_limit_bytes", "Limit for the weights of all loaded models.")
        self._device_used = gauge(
            "fovea_device_memory_used_bytes", "GPU memory in use by all processes.", "device", mode=_NEWEST
        )
        self._device_total = gauge("fovea_device_memory_total_bytes", "GPU memory there is.", "device", mode=_NEWEST)
        self._device_reserved = gauge(
            "fovea_device_memory_reserved_bytes", "GPU memory that torch keeps for the API, used or not.", "device"
        )
        self._shown: set[Labels] = set()
        self._one_at_a_time = threading.Lock()

    def set_to(self, engine: Engine) -> None:
        """Reads the system and the GPU, which blocks. Several threads may call it."""
        with self._one_at_a_time:
            self._processes.set(1)
            self._build.labels(fovea_version()).set(1)
            self._resident.set(describe_memory().process_bytes or 0)
            self._pending.set(engine.pending_images)
            self._most_pending.set(engine.max_pending_images)
            self._busy.set(engine.busy_s)
            self._loading.set(engine.models.loading_s)
            self._set_models(engine)
            self._set_device(engine.models.device)

    def _set_models(self, engine: Engine) -> None:
        loaded = engine.models.all()
        self._loaded.set(len(loaded))
        self._model_limit.set(engine.models.budget_bytes)
        size_bytes: Counter[Labels] = Counter()
        for model in loaded:
            size_bytes[self._predictions.labels_of(model.source)] += model.predictor.size_bytes
        self._shown.update(size_bytes)
        for labels in self._shown:
            self._model_memory.labels(*labels).set(size_bytes[labels])

    def _set_device(self, device: torch.device) -> None:
        """Sets the gauges of a GPU that this process uses. Asking another GPU would allocate memory on it."""
        if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        self._device_used.labels(str(device)).set(total_bytes - free_bytes)
        self._device_total.labels(str(device)).set(total_bytes)
        self._device_reserved.labels(str(device)).set(torch.cuda.memory_reserved(device))
