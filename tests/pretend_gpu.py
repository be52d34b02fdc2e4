"""A device "pretend" with the numbers of the CPU: for tests of what runs on a GPU, where there is none.

A tensor on it holds one of the CPU. Every operation is computed there, and fails as a GPU's would if a tensor
of the CPU is among those of the device. So it shows whether code leaves a tensor behind, and no time.
Importing this module registers the device with torch for the rest of the process, which can then fork no
process that trains. So `test_on_a_gpu.py` starts a process for it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing

NAME = "pretend"
#: The number of numbers of each tensor that was copied from the device to the CPU.
READ: list[int] = []
#: The same of each that was copied from the CPU to the device.
SENT: list[int] = []
aten = torch.ops.aten
#: Operations that take tensors of both devices: copies, and tensors of the device with indices on the CPU.
MIXED = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
}


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of the module of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *_: Any) -> None:
        torch.set_rng_state(state)

    def device(self, *_: Any) -> Any:
        return contextlib.nullcontext()


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
DEVICE = torch.device(NAME, 0)


class OnDevice(torch.Tensor):
    """A tensor on the device; `held` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self, *args: Any, **named: Any) -> str:
        return f"OnDevice({self.held!r})"

    def tolist(self) -> Any:
        return self.held.detach().tolist()

    def numpy(self, *args: Any, **named: Any) -> Any:
        raise TypeError(f"a tensor on {DEVICE} has no numbers for numpy")

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> OnDevice:
        return OnDevice(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the numbers of its tensors."""
    tensors: list[torch.Tensor] = []
    plain_args = _held(args, tensors)
    plain_kwargs = {name: _held(value, tensors) for name, value in kwargs.items() if name != "pin_memory"}
    on_device = any(isinstance(t, OnDevice) for t in tensors)
    _check(func, args, tensors, on_device)
    if func is aten._fused_sdp_choice.default:
        return 0  # the fused kernels of a GPU are none of a CPU's
    target = kwargs.get("device")
    if target is not None:
        on_device = torch.device(target).type == NAME
        plain_kwargs["device"] = torch.device("cpu")
    elif func is aten.copy_.default:
        on_device = isinstance(args[0], OnDevice)
    if (
        func in (aten.copy_.default, aten._to_copy.default)
        and not on_device
        and type(tensors[-1]) is OnDevice
    ):
        READ.append(tensors[-1].numel())
    if func is aten.copy_.default and on_device and not isinstance(args[1], OnDevice):
        SENT.append(args[1].numel())
    out = func(*plain_args, **plain_kwargs)
    if not on_device:
        return out
    wrapped = _wrapped(out)
    return wrapped if target is not None else return_and_correct_aliasing(func, args, kwargs, wrapped)


def _check(func: Any, args: tuple, tensors: list[torch.Tensor], on_device: bool) -> None:
    """Raise RuntimeError where tensors are on two devices; single numbers may be on the CPU."""
    left = [tuple(t.shape) for t in tensors if not isinstance(t, OnDevice) and t.dim()]
    if on_device and left and func not in MIXED:
        raise RuntimeError(f"{func}: expected all tensors on {DEVICE}, but those of shape {left} are on cpu")
    if on_device and func is aten.index.Tensor and not isinstance(args[0], OnDevice):
        raise RuntimeError(f"{func}: a tensor on cpu takes no indices on {DEVICE}")


def _held(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return a value with its tensors' numbers on the CPU, and note its tensors."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.held if isinstance(value, OnDevice) else value
    return type(value)(_held(v, tensors) for v in value) if type(value) in (list, tuple) else value


def _wrapped(value: Any) -> Any:
    """Return a value with its tensors on the device."""
    if isinstance(value, torch.Tensor):
        return OnDevice(value)
    return type(value)(map(_wrapped, value)) if type(value) in (list, tuple) else value


def _register(library: torch.library.Library, name: str) -> None:
    operation, _, overload = name.partition(".")
    func = getattr(getattr(aten, operation), overload or "default")
    library.impl(name, lambda *args, **kwargs: compute(func, args, kwargs), "PrivateUse1")


#: Torch makes tensors of nothing, and of Python's numbers, without asking a class of tensors.
MADE = (
    *("empty_strided", "empty.memory_format", "copy_", "arange", "arange.start", "arange.start_step"),
    *("linspace", "eye", "eye.m", "randperm", "randperm.generator"),
)
LIBRARY = torch.library.Library("aten", "IMPL")
for _name in MADE:
    _register(LIBRARY, _name)


def to_device(model: torch.nn.Module) -> Any:
    """Move a model there: its parameters are new objects, as tensors of another class."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return model.to(DEVICE)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
