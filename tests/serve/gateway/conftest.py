"""The gateway's tests need a server's packages and a client's."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[gateway]")
pytest.importorskip("httpx2", reason="NO GATEWAY TESTS: pip install softprompt[gateway]")
