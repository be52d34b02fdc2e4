"""The server writes its log as lines of text, or as one JSON object a line (`--log-format json`)."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

LogFormat = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: time, level, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; line breaks inside are escaped by JSON."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "request", None)
        line |= fields if fields is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def use(form: LogFormat) -> None:
    """Write the log to the standard error in this form, from now on."""
    root = logging.getLogger()
    logging.basicConfig(level=logging.WARNING)
    formatter = JsonFormatter() if form == "json" else logging.Formatter(TEXT)
    for handler in root.handlers:
        handler.setFormatter(formatter)
    logging.getLogger("softprompt.serve").setLevel(logging.INFO)


def is_json() -> bool:
    """Return whether the log has one JSON object a line."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)
