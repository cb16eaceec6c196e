"""The record of a run whose process is gone: nobody else is left to write it."""

from contextlib import suppress
from datetime import UTC, datetime

from coreai_opt.runs.run_record import Record, write_json
from coreai_opt.sweep.folder import SweepJob


class LostProcessError(Exception):
    """The process of a run ended without a word: killed, out of memory, or its node went down."""


def record_crash(entry: SweepJob, cause: str, trace: str) -> None:
    """Write into the record of a run that it has failed.

    Args:
        entry: the run.
        cause: one sentence.
        trace: what is known of how it happened.
    """
    error = {"type": LostProcessError.__name__, "message": cause, "traceback": trace}
    # A disk that is full: the table of failures says it all the same.
    with suppress(OSError):
        run = entry.earlier()
        if run is None:
            entry.paths.root.mkdir(parents=True, exist_ok=True)
            config = dict(entry.point.config)
            texts, key = list(entry.point.overrides), entry.point.warmup_key
            record = Record(entry.paths, config, texts, warmup_key=key).content
        else:
            record = dict(run.record)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        seconds = None if run is None else round(run.seconds, 3)
        record |= {"status": "failed", "finished": now, "wall_seconds": seconds, "error": error}
        write_json(entry.paths.result, record)
