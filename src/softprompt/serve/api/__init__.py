"""OpenAI's HTTP API over an engine: routes, keys, bounds. Knows the engine by its interface alone (service.py)."""

from .app import create_app

__all__ = ["create_app"]
