"""Names to classes."""


class Registry:
    def __init__(self, name):
        self.name = name
        self.module_dict = {}

    def register_module(self, name=None):
        def register(cls):
            key = name or cls.__name__
            if key in self.module_dict:
                raise KeyError(f"{key} is already registered in {self.name}")
            self.module_dict[key] = cls
            return cls

        return register

    def get(self, key):
        return self.module_dict.get(key)

    def build(self, cfg, default_args=None):
        """The class that cfg.NAME names, made from cfg. Errors of its constructor get the class name in front."""
        if default_args is not None:
            cfg.update(default_args)
        cls = self.get(cfg.get("NAME"))
        if cls is None:
            raise KeyError(f"{cfg.get('NAME')} is not in the {self.name} registry: {sorted(self.module_dict)}")
        try:
            return cls(cfg)
        except Exception as error:
            raise type(error)(f"{cls.__name__}: {error}")  # noqa: B904
