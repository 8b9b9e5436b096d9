"""The result of a benchmark as plain values: tables to read, and claims that are met or not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Figures side by side. `rows`: one mapping a row, the same keys in all of them; units in the keys."""

    title: str
    rows: Sequence[Mapping[str, Cell]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A figure and its bound. why: the measurement that explains a claim that is not met."""

    what: str
    value: float
    must_be: Literal["at most", "at least"]
    bound: float
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.value <= self.bound if self.must_be == "at most" else self.value >= self.bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One benchmark's figures. notes: assumptions, and the sources of assumed numbers."""

    name: str
    tables: Sequence[Table]
    claims: Sequence[Claim]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; each claim says whether it is met."""
        claims = [{**asdict(claim), "met": claim.met} for claim in self.claims]
        return asdict(self) | {"claims": claims}
