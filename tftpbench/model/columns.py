"""What a column of results is: unit, type and meaning. Pure data."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["int", "float", "text", "time", "list", "bool"]


@dataclass(frozen=True)
class Column:
    """What a column holds. unit "" means a plain number, key or word."""

    unit: str
    meaning: str
    dtype: Dtype
    nullable: bool = True

    @property
    def is_number(self) -> bool:
        """Whether it can be compared with a number."""
        return self.dtype in {"int", "float"}
