"""Decides which parameters a job trains and which it freezes. Needs the catalogue of architectures, and so torch."""

from __future__ import annotations

from collections.abc import Iterable

from models.architectures.catalog import get_architecture, head_parameter_names
from workers.configs.fine_tune import ResolvedFineTune


def trained_parameter_names(names: Iterable[str], config: ResolvedFineTune) -> frozenset[str]:
    """Returns the parameters, of `names`, that the job trains.

    For `feature_extraction` it is the head, or, if only the backbone has pretrained weights, all except the backbone.
    """
    if config.strategy != "feature_extraction":
        return frozenset(names)
    if config.backbone_base is not None:
        prefix = backbone_prefix(config)
        return frozenset(name for name in names if not name.startswith(prefix))
    head = head_parameter_names(config.architecture, config.options)
    return frozenset(name for name in names if name in head)


def backbone_prefix(config: ResolvedFineTune) -> str:
    """The prefix of the state_dict keys of the feature extractor."""
    backbone_of = get_architecture(config.architecture).backbone
    assert backbone_of is not None
    return backbone_of(config.options).prefix
