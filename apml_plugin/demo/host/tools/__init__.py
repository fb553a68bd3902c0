from .runner import run_net

__all__ = ["run_net"]
