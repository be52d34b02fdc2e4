"""`SoftPromptModel` is what the class of a transformers model gains when a prompt is attached to it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import SoftPromptError
from ..lm import attachment
from . import call, saving, trl_calls
from .holder import MODULE, NAME, alone, holder_of, without_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel as Base
else:
    Base = object


class SoftPromptModel(Base):
    """A transformers model with a prompt has its own class's methods, and these.

    `attach` makes one, and `from_pretrained` one from what was saved. The only trained parameters are those
    of its submodule `soft_prompt`. `forward` and `generate` take two more arguments: `prompts`, one name or
    number of the prompt table for each row or one name for all; and `input_lengths` [batch], the tokens of
    each row that are input, which a prompt behind the input needs where there are no labels.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call.forward(self, super().__call__, args, kwargs)

    def generate(self, inputs: Tensor | None = None, **options: Any) -> Any:
        """Generate with transformers' `generate`; the tokens and objects given back are in its form.

        `inputs` are token ids [batch, tokens], and `options` those of transformers, and `prompts`. Settings
        that only the checkpoint's generation config has (a penalty, a temperature) are neutral unless they
        are passed: see docs/running.md. Raises SoftPromptError for an unknown prompt, and for what the model
        cannot do with a prompt.
        """
        base: Any = super()
        return call.generate(self, base.generate, inputs, options)

    def train(self, mode: bool = True) -> Any:
        """Set the prompt to training. The frozen base stays in evaluation mode, without dropout."""
        self.training = mode
        getattr(self, MODULE).train(mode)
        return self

    @contextlib.contextmanager
    def plain(self) -> Iterator[Any]:
        """Run the base alone inside, as a reference for example."""
        with alone():
            yield self

    def reference(self) -> Any:
        """Return the base alone as a model that shares every weight: the `ref_model` of DPO, KTO or GRPO."""
        twin = object.__new__(_reference_class(holder_of(self).own_class))
        vars(twin).update({name: value for name, value in vars(self).items() if name != NAME})
        vars(twin)["_modules"] = {name: part for name, part in self._modules.items() if name != MODULE}
        twin.training = False
        if "forward" in vars(self):  # a trainer has replaced it: that one runs this model, with its vectors
            vars(twin)["forward"] = _alone(self.forward)
        return twin

    def add_model_tags(self, tags: Any) -> None:
        """Add tags to the model card, as transformers does. TRL's trainers do so while they are built.

        Raises SoftPromptError for settings of such a trainer that an attached model cannot take.
        """
        trl_calls.check_trainer(sys._getframe(1).f_locals.get("self"), len(holder_of(self).prompts))
        super().add_model_tags(tags)

    def detach(self) -> Any:
        """Give the model back as it was before `attach`, to the byte and attribute. The prompt is dropped.

        What a trainer has changed in its configuration meanwhile is taken back too.
        """
        holder = holder_of(self)
        vars(self.config).update(holder.settings)
        del vars(self)[NAME], self._modules[MODULE]
        self.__class__ = holder.own_class
        holder.lm.close()
        return self

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained, in PEFT's format."""
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in self.parameters())
        share = 100 * trained / whole
        print(f"trainable params: {trained:,} || all params: {whole:,} || trainable%: {share:.4f}")

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile each layer in place; `args` and `options` are those of `torch.compile`.

        What is computed around the layers depends on the vectors of each call, so it is not compiled, and
        `torch.compile(model)` compiles nothing. Raises SoftPromptError for a model whose layers are unknown.
        """
        holder = holder_of(self)
        layers = holder.lm.checkpointable_layers
        if not layers:
            raise SoftPromptError(
                f"the layers of a {holder.lm.spec.family} model cannot be compiled",
                why="transformers does not mark them as layers",
                fix="use the model without model.compile()",
            )
        with attachment.attach(self).changing(*layers):
            for layer in layers:
                layer.compile(*args, **options)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Compute layers again in the backward pass. transformers' `kwargs` are not needed and are ignored.

        Raises SoftPromptError for a model whose layers are unknown, or whose rows would be computed
        otherwise.
        """
        with alone():
            holder_of(self).lm.set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations of all layers for the backward pass."""
        holder_of(self).lm.set_gradient_checkpointing(False)

    def enable_input_require_grads(self) -> None:
        """Do nothing: the vectors themselves bring the gradient into the model."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool | None = None,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **more: Any,
    ) -> None:
        """Write the prompt as an artifact: `softprompt generate`, `eval`, `serve` and `export` take it.

        `save_directory` is the artifact's folder. A trainer passes `is_main_process`. For it
        `model.safetensors` holds the trained parameters as well, as it reads that file to resume a run. With
        `push_to_hub` the prompt is uploaded too, to `repo_id` (default: the folder's name), with `more` of
        the options of `softprompt.push`. Raises SoftPromptError for a folder that holds something else, and
        as `push` does.
        """
        if is_main_process is not False:
            saving.save(self, Path(save_directory), for_trainer=bool(is_main_process))
            if push_to_hub:
                options = {name: value for name, value in more.items() if name in saving.PUSHED}
                self.push_to_hub(repo_id or Path(save_directory).name, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Upload the prompt as an artifact to the Hugging Face hub; the base model is not uploaded.

        `repo_id`, `options` (private, revision, license, base_model, token …), the result and what is raised
        are those of `softprompt.push`.
        """
        return saving.push(self, repo_id, **options)

    @classmethod
    def from_pretrained(cls, base: Any, folder: str | Path, tokenizer: Any = None) -> Any:
        """Attach a prompt that `save_pretrained` or `softprompt tune` wrote: a folder, or `hf:ID@REVISION`.

        `base` and `tokenizer` are as in `softprompt.attach`. Raises SoftPromptError where the base is another
        than the one that it was trained on.
        """
        from .attach import attach_artifact

        return attach_artifact(base, folder, tokenizer)

    @property
    def _keys_to_ignore_on_save(self) -> list[str]:
        """The base's parameters, which a trainer that loads a checkpoint does not miss then."""
        head = holder_of(self).lm.head_names
        return [name for name in self.state_dict() if not name.startswith(f"{MODULE}.") and name not in head]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Apply torch's `half`, `to` and their like. The prompt moves along and keeps its precision.

        Trainers move a model before they use it in any other way, so TRL's are prepared here.
        """
        trl_calls.share_references(lambda model: isinstance(model, SoftPromptModel))

        def moved(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        with without_prompt(self):
            super()._apply(fn, recurse)  # type: ignore[misc]
        getattr(self, MODULE)._apply(moved, recurse)
        return self


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call_alone(*args: Any, **kwargs: Any) -> Any:
        with alone():
            return function(*args, **kwargs)

    return call_alone


@functools.lru_cache
def _reference_class(plain: type) -> type:
    """Return the class of a reference: it takes a batch for a model with a table, and needs no prompts."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        above: Any = super(reference, self)
        return above.__call__(*args, **{k: v for k, v in kwargs.items() if k not in call.ARGUMENTS})

    reference = type(plain.__name__, (plain,), {"__call__": __call__, "__module__": plain.__module__})
    return reference


@functools.lru_cache
def subclass(plain: type) -> type:
    """Return the class of a model with a prompt, whose own class is `plain`."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if NAME not in vars(self):  # detached; a trainer or accelerate still has this as the model's forward
            return plain.forward(self, *args, **kwargs)
        above: Any = super(with_prompt, self)
        return call.forward(self, above.forward, args, kwargs)

    signature = inspect.signature(plain.forward)
    parameters = list(signature.parameters.values())
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in call.ARGUMENTS]
    end = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    forward.__signature__ = signature.replace(parameters=[*parameters[:end], *more, *parameters[end:]])  # type: ignore[attr-defined]
    forward.__doc__ = plain.forward.__doc__
    with_prompt = type(
        plain.__name__, (SoftPromptModel, plain), {"forward": forward, "__module__": plain.__module__}
    )
    return with_prompt
