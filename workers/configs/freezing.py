"""Which parameters a job leaves as they are. Needs the catalogue of architectures, and so torch."""

from __future__ import annotations

from collections.abc import Iterable

from models.architectures.catalog import get_architecture, head_parameter_names
from workers.configs.fine_tune import ResolvedFineTune


def learning_names(names: Iterable[str], config: ResolvedFineTune) -> frozenset[str]:
    """Those of the network's parameters `names` that learn.

    With `feature_extraction`: the head, or, if nothing but the backbone came with weights, all that stands on it.
    """
    if config.strategy != "feature_extraction":
        return frozenset(names)
    if config.backbone_base is not None:
        prefix = backbone_prefix(config)
        return frozenset(name for name in names if not name.startswith(prefix))
    head = head_parameter_names(config.architecture, config.options)
    return frozenset(name for name in names if name in head)


def backbone_prefix(config: ResolvedFineTune) -> str:
    """Of the state_dict keys of the feature extractor."""
    backbone_of = get_architecture(config.architecture).backbone
    assert backbone_of is not None
    return backbone_of(config.options).prefix
