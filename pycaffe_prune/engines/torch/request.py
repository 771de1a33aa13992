"""What the torch engine asks of its worker; read by both, so that neither needs the other."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Request"]


class Request(BaseModel):
    """One line on the worker's standard input."""

    model_config = ConfigDict(frozen=True)

    task: Literal["train", "evaluate", "forward", "curvature"]
    folders: tuple[str, ...]
    """Run folders, whose ``job.json`` hold the jobs of the task; several for runs to be packed."""
    packed: bool = False
    """Whether one run alone is trained as in a pack: to the bit, where it is stacked."""
    device: str
    threads: int
    tf32: bool
