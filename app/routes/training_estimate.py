"""The size of a training run, computed from the network and the dataset."""

from __future__ import annotations

from app.schemas.jobs import Estimate, MemoryEstimate
from models.architectures.catalog import parameter_sizes
from workers.configs.fine_tune import ResolvedFineTune, steps_per_epoch
from workers.configs.freezing import trained_parameter_names
from workers.datasets.dataset import DatasetInfo

_FLOAT32_BYTES = 4
_MOMENTS = {"sgd": 1, "adamw": 2}  # values that the optimizer keeps per trained parameter


def estimate(config: ResolvedFineTune, dataset: DatasetInfo) -> Estimate:
    """The steps, images and memory of the run that `config` describes."""
    settings = config.hyperparameters
    sizes = parameter_sizes(
        config.architecture,
        num_categories=len(config.categories),
        image_size_px=settings.image_size_px,
        options=config.options,
    )
    parameters, trained = sum(sizes.values()), sum(sizes[name] for name in trained_parameter_names(sizes, config))
    moments = _MOMENTS[settings.optimizer] if settings.optimizer != "sgd" or settings.momentum else 0
    train_images = dataset.splits["train"].images
    steps = steps_per_epoch(train_images, batch_size=config.batch_size)
    return Estimate(
        parameters=parameters,
        trained_parameters=trained,
        train_images=train_images,
        val_images=dataset.splits["val"].images,
        steps_per_epoch=steps,
        steps=steps * settings.epochs,
        images=train_images * settings.epochs,
        memory=MemoryEstimate(
            parameters_bytes=parameters * _FLOAT32_BYTES,
            gradients_bytes=trained * _FLOAT32_BYTES,
            optimizer_bytes=trained * moments * _FLOAT32_BYTES,
            total_bytes=(parameters + trained * (1 + moments)) * _FLOAT32_BYTES,
            basis="Parameters, gradients and the optimizer's moments in float32. Activations, which grow with "
            "batch_size and image_size_px, and the libraries need memory in addition.",
        ),
    )
