"""OpenAI's HTTP API over an engine, which it knows by its interface alone (service.py)."""

from .app import create_app

__all__ = ["create_app"]
