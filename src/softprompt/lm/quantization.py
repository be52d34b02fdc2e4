"""Quantization configurations of transformers, from and to the plain values of recipes and manifests.

A recipe's mapping has the fields of the class: `{load_in_4bit: true, bnb_4bit_quant_type: nf4}` for
bitsandbytes, `{quant_method: torchao, quant_type: Int8WeightOnlyConfig}` for torchao, where `quant_type`
may be the name of one of its classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import SoftPromptError, unknown
from .locate import package_named

EXAMPLE = (
    "for example {load_in_4bit: true} (bitsandbytes), or "
    "{quant_method: torchao, quant_type: Int8WeightOnlyConfig}"
)


def configuration(given: Any) -> Any:
    """Return transformers' configuration object for an object or a mapping; None stays None.

    Raises SoftPromptError for unknown methods and fields, and for a library that is missing.
    """
    from transformers.quantizers.auto import AutoQuantizationConfig
    from transformers.utils.quantization_config import QuantizationConfigMixin

    if given is None or isinstance(given, QuantizationConfigMixin):
        return given
    if not isinstance(given, Mapping):
        raise SoftPromptError(
            f"quantization_config is a {type(given).__name__}, not a configuration of transformers",
            fix=f"give BitsAndBytesConfig(…), TorchAoConfig(…), …, or a mapping of its fields, {EXAMPLE}",
        )
    values = dict(given)
    try:
        if isinstance(values.get("quant_type"), str):
            values["quant_type"] = _of_torchao(values["quant_type"])
        config = AutoQuantizationConfig.from_dict(values)
    except ImportError as error:
        raise _missing(error) from error
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        if package_named(str(error)):
            raise _missing(error) from error
        raise SoftPromptError(
            f"quantization {_short(given)} is not understood",
            why=(str(error).strip().splitlines() or [type(error).__name__])[0],
            fix=f"give the fields of transformers' configuration class, {EXAMPLE}",
        ) from error
    known = {*vars(config), *config.to_dict()}
    if odd := sorted(str(key) for key in given if key not in known):
        names = sorted(key for key in known if not key.startswith("_"))
        raise unknown("field of quantization", odd[0], names, fix=f"{type(config).__name__} has these fields")
    return config


def plain(config: Any) -> dict[str, Any] | None:
    """Return a configuration as JSON values, which `configuration` reads again."""
    if config is None:
        return None
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    public = {key: value for key, value in values.items() if not key.startswith("_")}
    return json.loads(json.dumps(public, default=str))


def of_model(model: Any) -> dict[str, Any] | None:
    """Return how a model's weights are quantized, as JSON values; None where they are plain numbers."""
    if not getattr(model, "is_quantized", False):
        return None
    values = plain(getattr(model.config, "quantization_config", None)) or {}
    # transformers calls a model of a GGUF file quantized, but has dequantized its weights
    return None if values.get("quant_method") in (None, "gguf") else values


def dequantized(weight: Any) -> Any:
    """Return a weight as plain numbers, where its library has it as a tensor of its own kind."""
    is_own = type(weight).__module__.startswith("torchao")
    return weight.dequantize() if is_own else weight


def _of_torchao(name: str) -> dict[str, Any]:
    """Return the plain values of torchao's configuration class with this name and its defaults."""
    from torchao import quantization
    from torchao.core.config import AOBaseConfig, config_to_dict

    classes = {
        key: value
        for key, value in vars(quantization).items()
        if isinstance(value, type) and issubclass(value, AOBaseConfig) and value is not AOBaseConfig
    }
    if name not in classes:
        raise unknown("quant_type of torchao", name, sorted(classes), fix="name one of its classes")
    return {"default": config_to_dict(classes[name]())}


def _missing(error: Exception) -> SoftPromptError:
    package = package_named(str(error)) or getattr(error, "name", None)
    return SoftPromptError(
        "the library of this quantization is not installed",
        why=(str(error).strip().splitlines() or [type(error).__name__])[0],
        fix=f"pip install {package or 'it'}, or leave quantization out",
    )


def _short(value: Any) -> str:
    text = str(dict(value))
    return text if len(text) <= 100 else text[:99] + "…"
