"""A segmenter's supports, and what predicting by them needs: made ready once, when a label is first predicted by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from iir_sdk.errors import LabelError, NoSupportError
from iir_sdk.model.support_state import Tokens
from iir_sdk.process import ProcessLock
from iir_sdk.supports.bank import Example, SupportBank
from iir_sdk.supports.encoded import EncodedSupport, join_shots

Prepared = TypeVar("Prepared")


class ReadySupports(Generic[Prepared]):
    """The supports of a moment, taken as one by a prediction while another thread adds.

    Joining and merging a label's shots costs about as much as encoding one; done at every added shot it would cost
    the square of their number, so it waits for the first prediction. Threads that predict first at once wait for one.

    Args:
        prepare: from what labels are compared by to the engine's own form.
        token_budget: most tokens that a label's supports are compared by.
        bank: the supports.
        tasks: what is ready already, by label.
    """

    def __init__(
        self,
        prepare: Callable[[Sequence[EncodedSupport]], Prepared],
        token_budget: int,
        bank: SupportBank,
        tasks: Mapping[str, EncodedSupport] | None = None,
    ) -> None:
        self.bank, self._labels = bank, bank.labels
        self._prepare, self._token_budget = prepare, token_budget
        self._tasks = dict(tasks or {})
        self._of_all: Prepared | None = None
        self._making = ProcessLock()

    def holding(self, bank: SupportBank) -> ReadySupports[Prepared]:
        """The same with another bank; labels whose supports did not change stay ready."""
        # A copy in one step, since a prediction may make further ones ready meanwhile.
        ready = dict(self._tasks)
        unchanged = {
            label: task for label, task in ready.items() if _of_label(bank, label) == _of_label(self.bank, label)
        }
        return ReadySupports(self._prepare, self._token_budget, bank, unchanged)

    def names(self, labels: Sequence[str] | None) -> tuple[str, ...]:
        """The labels that a prediction asks for, checked; all of them for None."""
        if isinstance(labels, str) or not isinstance(labels, Iterable | None):
            raise LabelError(f"labels={labels!r} is no list; pass one, as in labels=[{labels!r}].")
        asked = {c.label for c in self.bank.counterexamples} if labels is None else labels
        for label in asked:
            if label not in self._labels and self.bank.counterexamples_of(label):
                raise NoSupportError(
                    f"label {label!r} has counterexamples and no support: show what it is, too, by add_support(image, "
                    f"mask, label={label!r}), or forget them by remove_support({label!r})."
                )
        if not self._labels:
            raise NoSupportError("no support was added; call add_support(image, mask) first.")
        names = self._labels if labels is None else tuple(labels)
        if not names or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
            raise LabelError(f"labels={list(names)} must name at least one label by its string, and none twice.")
        for name in names if labels is not None else ():
            self.bank.of_label(name)
        # Of an array they are numpy's, which results would show as such.
        return tuple(str(name) for name in names)

    def prepared(self, names: tuple[str, ...]) -> Prepared:
        """What the engine predicts these labels by; that of all labels is kept."""
        with self._making:
            if names != self._labels:
                return self._prepare([self._task(name) for name in names])
            if self._of_all is None:
                self._of_all = self._prepare([self._task(name) for name in names])
            return self._of_all

    def _task(self, label: str) -> EncodedSupport:
        if label not in self._tasks:
            states = [support.state for support in self.bank.of_label(label)]
            counterexamples = [c.tokens for c in self.bank.counterexamples_of(label)]
            self._tasks[label] = as_task(states, self._token_budget, counterexamples)
        return self._tasks[label]


def _of_label(bank: SupportBank, label: str) -> tuple[Example, ...]:
    return (*(s for s in bank if s.label == label), *bank.counterexamples_of(label))


def as_task(
    states: Sequence[EncodedSupport], token_budget: int, counterexamples: Sequence[Tokens[NDArray[Any]]] = ()
) -> EncodedSupport:
    """What a label is compared by: all its supports together, and as background what does not show its object.

    They are merged to a number of tokens within a budget that leaves a single support whole.
    """
    largest = max(state.tokens.count for state in states)
    return join_shots(states).beside(counterexamples).within(max(token_budget, largest))
