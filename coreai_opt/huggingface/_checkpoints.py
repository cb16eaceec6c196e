"""Mask files in checkpoint folders of transformers.Trainer, and the mark that belongs to each.

Trainer writes ``trainer_state.json`` with its checkpoint, and calls its callbacks when the folder
is complete. So the mark is in every checkpoint of a training that prunes, and a folder with a mark
and without the file that belongs to it is one of a training that was killed in between.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from coreai_opt.pruning.errors import PruningError

MASKS_FILE = "coreai_pruning.pt"
STATE_FILE = "trainer_state.json"
# Beside the states of Trainer's own callbacks, which it writes and does not look into.
ENTRY = "coreai_pruning"


@dataclass(frozen=True)
class Mark:
    """What is known of the masks of a checkpoint without their file.

    Attributes:
        token: the same in the file that belongs to the checkpoint.
        clock: reading of the schedule's clock.
        beginning: the step of the training at which pruning began.
        directory: where the training writes its checkpoints.
    """

    token: str
    clock: int
    beginning: int
    directory: str

    @classmethod
    def new(cls, clock: int, beginning: int, directory: str) -> "Mark":
        """Return a mark that no other checkpoint has."""
        return cls(uuid4().hex, clock, beginning, str(Path(directory).absolute()))

    @classmethod
    def of(cls, state: TrainerState) -> "Mark | None":
        """Return the mark in the state of a trainer; None = there is none."""
        return cls._in(state.stateful_callbacks)

    @classmethod
    def in_folder(cls, folder: Path) -> "Mark | None":
        """Return the mark of a checkpoint; None = it has none, or is no checkpoint."""
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls._in(state.get("stateful_callbacks") or {})

    @classmethod
    def _in(cls, entries: Mapping[str, Any]) -> "Mark | None":
        entry = entries.get(ENTRY)
        return None if entry is None else cls(**entry["attributes"])

    def put_into(self, state: TrainerState) -> None:
        """Have the next checkpoint carry this mark."""
        state.stateful_callbacks[ENTRY] = {"args": {}, "attributes": asdict(self)}


class MasksLostError(PruningError):
    """A checkpoint of a training that prunes has no masks beside it.

    Attributes:
        folder: the checkpoint; None = where it is is not known.
    """

    def __init__(self, folder: Path | None, problem: str) -> None:
        self.folder = folder
        super().__init__(problem)


def folder_of(mark: Mark, args: TrainingArguments, step: int) -> Path | None:
    """Return the folder of the checkpoint that has a mark; None = it is in none that is known.

    Looked at are the checkpoint that the arguments name, and those of a step in the directory of
    the training, of one of its trials, and in the directory that it was written to.
    """
    for folder in _folders(mark, args, step):
        there = Mark.in_folder(folder)
        if there is not None and there.token == mark.token:
            return folder
    return None


def masks_of(mark: Mark, folder: Path | None, step: int, directory: str) -> Mapping[str, Any]:
    """Return the masks of the checkpoint that has a mark; a MasksLostError says what is allowed."""
    zeros = "masks_from='zeros', which keeps its zeros and the clock, and no dense values"
    if folder is None:
        raise MasksLostError(
            None,
            f"the checkpoint of step {step} has its masks in a file beside it, and its folder is "
            f"neither in {directory!r} nor in {mark.directory!r}, where it was written; allowed: "
            f"TrainingArguments(resume_from_checkpoint=FOLDER), or {zeros}",
        )
    file = folder / MASKS_FILE
    saved: Mapping[str, Any] = {"token": None}
    if file.is_file():
        saved = torch.load(file, "cpu", weights_only=True)
    if saved["token"] == mark.token:
        masks: Mapping[str, Any] = saved["masks"]
        return masks
    problem = "is not there" if saved["token"] is None else "is that of an earlier save"
    before = _before(folder)
    another = "an earlier checkpoint" if before is None else f"the checkpoint before, {before}"
    raise MasksLostError(
        folder,
        f"{folder} has no masks: {MASKS_FILE} {problem}, as when a training is killed between the "
        f"two; allowed: {another}, or {zeros}",
    )


def write_masks(folder: Path, mark: Mark, masks: Mapping[str, Any]) -> None:
    """Write the file that belongs to a checkpoint, whole or not at all."""
    beside = folder / f"{MASKS_FILE}.tmp"
    torch.save({"token": mark.token, "masks": dict(masks)}, beside)
    beside.replace(folder / MASKS_FILE)


def _folders(mark: Mark, args: TrainingArguments, step: int) -> Iterator[Path]:
    if isinstance(args.resume_from_checkpoint, str):
        yield Path(args.resume_from_checkpoint)
    name = f"{PREFIX_CHECKPOINT_DIR}-{step}"
    for directory in dict.fromkeys((str(Path(args.output_dir).absolute()), mark.directory)):
        yield Path(directory, name)
        yield from sorted(Path(directory).glob(f"*/{name}"))


def _before(folder: Path) -> Path | None:
    """Return the last checkpoint before this one whose masks are there."""
    found = {}
    for other in folder.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = other.name.rpartition("-")[2]
        if number.isdecimal() and (other / MASKS_FILE).is_file():
            found[int(number)] = other
    own = folder.name.rpartition("-")[2]
    earlier = [number for number in found if own.isdecimal() and number < int(own)]
    return found[max(earlier)] if earlier else None
