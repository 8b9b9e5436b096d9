"""What a benchmark found, as plain values: tables to read, and claims that hold or do not."""

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
    """A figure and what it has to be. `why`: the measurement that explains a claim that is not met."""

    what: str
    value: float
    must_be: Literal["at most", "at least"]
    bound: float
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is what it has to be."""
        return self.value <= self.bound if self.must_be == "at most" else self.value >= self.bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One benchmark's figures. `notes`: what was assumed, and where assumed numbers come from."""

    name: str
    tables: Sequence[Table]
    claims: Sequence[Claim]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; each claim says whether it is met."""
        claims = [{**asdict(claim), "met": claim.met} for claim in self.claims]
        return asdict(self) | {"claims": claims}
