"""The library's words and the messages' numbers for the same things: one table each way."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb

N = TypeVar("N", bound=str | Enum)


class Words(Generic[N]):
    """A table of words and numbers, each number once.

    Args:
        numbers: word to number.
        unspecified: what number 0 means; None where it means nothing.
    """

    def __init__(self, numbers: Mapping[N, Any], unspecified: N | None = None) -> None:
        self._numbers = dict(numbers)
        self._words = {number: word for word, number in numbers.items()}
        if unspecified is not None:
            self._words[0] = unspecified

    def number(self, word: N) -> Any:
        """The number of a word of the library."""
        return self._numbers[word]

    def name(self, field: str, number: int) -> N:
        """The word of a number that was sent.

        Raises:
            InputError: a number that means nothing.
        """
        if number not in self._words:
            words = (w.name if isinstance(w, Enum) else w for w in self._numbers)
            found = f"the unknown number {number}" if number else "none"
            raise InputError(field, f"one of {', '.join(words)}", found)
        return self._words[number]


SEXES = Words({"female": pb.SEX_FEMALE, "male": pb.SEX_MALE, "neutral": pb.SEX_NEUTRAL}, "neutral")
CLOTHING = Words(
    {
        "auto": pb.CLOTHING_AUTO,
        "tight": pb.CLOTHING_TIGHT,
        "casual": pb.CLOTHING_CASUAL,
        "loose": pb.CLOTHING_LOOSE,
    },
    "auto",
)
DISTORTION_MODELS = Words(
    {
        "none": pb.DISTORTION_MODEL_NONE,
        "brown_conrady": pb.DISTORTION_MODEL_BROWN_CONRADY,
        "rational": pb.DISTORTION_MODEL_RATIONAL,
    },
    "none",
)
