"""A transformers model while this library uses it: how it is changed, run, and given back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from . import attention_choice, module_state, refusals
from .attachment import attach, configurations
from .injected import Active, attention_lost, inject
from .model_errors import errors_explained

if TYPE_CHECKING:
    from typing_extensions import Self


class OpenModel:
    """A model that is changed while it is open; leaving it as a context manager closes it."""

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        refusals.refuse_wrapped(model)
        self._model: PreTrainedModel | None = model
        self.name = name
        self._beside: Any = None  # see `lm.per_layer_inputs`
        self._attention_modules: tuple[Any, ...] = ()
        self._attention_names: set[str] = set()
        self._attachment = attach(model)
        self._attachment.add_user(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._attachment.add_user(self)  # a copy is a user of the copied model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def model(self) -> PreTrainedModel:
        """Return the transformers model. Raises SoftPromptError once it is closed."""
        if self._model is None:
            raise refusals.closed(self.name)
        return self._model

    def close(self) -> None:
        """Give the transformers model back as it was; later calls of this object raise SoftPromptError.

        The model's attention, hooks, settings, `requires_grad` and training mode are what they were before.
        Weights that were trained (base=lora, base=full, a head) stay trained. Where several objects were made
        of one model, it is given back when the last of them is closed. Closing again does nothing.
        """
        model, self._model = self._model, None
        if model is not None:
            self._attention_modules, self._beside = (), None
            self._attachment.release(model, self)

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Record what is changed inside on the model, for `close`, which an exception calls at once."""
        try:
            with self._attachment.changing(*self.model.modules(), *configurations(self.model)):
                yield
        except BaseException:
            self.close()
            raise

    def watch_attention(self) -> None:
        """Remember which attention the model calls now, for `check_attention`.

        The modules are kept, because a walk through a model is slow. A layer that is put in later does not
        come for its vectors, which `Active.check` notices.
        """
        modules = self._attachment.attention_modules.values()
        self._attention_modules = (self.model, *dict.fromkeys(modules))
        self._attention_names = attention_choice.names(self._attention_modules)

    def check_attention(self) -> None:
        """Raise SoftPromptError where the model calls another attention than it was loaded with."""
        if (
            self.model is not None
            and attention_choice.names(self._attention_modules) != self._attention_names
        ):
            raise attention_lost("it is no longer the one that puts vectors in")

    @contextlib.contextmanager
    def running(self, active: Active | None = None, *, part: bool = False) -> Iterator[None]:
        """Run the model inside: what is run inside sees `active` (see `injected.inject`).

        An exception that the model raises becomes a SoftPromptError with it as its cause.
        """
        with errors_explained(self.model), inject(active, self._attachment.sites, part=part):
            yield

    @contextlib.contextmanager
    def generating(self, active: Active) -> Iterator[None]:
        """Run transformers' `generate` inside, as `running`; `close` removes what it leaves on the model."""
        with self.running(active), module_state.cleared(self.model), self._attachment.changing(self.model):
            yield
