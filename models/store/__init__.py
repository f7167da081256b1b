"""Files of models: the registry, state_dicts and pretrained weights."""
