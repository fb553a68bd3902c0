from utils.registry import Registry

MODELS = Registry("models")


def build_model_from_cfg(cfg, **kwargs):
    """The network that `cfg.NAME` names."""
    return MODELS.build(cfg, **kwargs)
