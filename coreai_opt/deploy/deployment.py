"""Deployment: builds the artefacts of a model, and measures them against its dense twin."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coreai_opt.deploy.artefact import Artefact, DeployError, Target
from coreai_opt.deploy.comparing import compare
from coreai_opt.deploy.peak_memory import peak_bytes
from coreai_opt.deploy.registry import TARGETS, target_of
from coreai_opt.deploy.sizes import compressed_bytes, dense_twin, share_of_zeros, written_bytes
from coreai_opt.deploy.sparse_inference import batch_of
from coreai_opt.deploy.timing import latencies, threads
from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.model.copying import copy_of

__all__ = ["Deployed", "Deployment", "deploy"]

# Below that share of zeros nothing can be gained by them.
SPARSE = 0.01


@dataclass(frozen=True)
class BatchLatency:
    """Latency of one call with a batch, of the artefact and of the dense model in stock torch.

    Attributes:
        p50_ms, p95_ms: milliseconds a call.
        per_second: inputs a second.
        dense_p50_ms, dense_p95_ms, dense_per_second: of the dense model, in turns with it.
        speedup: dense p50 over p50.
    """

    p50_ms: float
    p95_ms: float
    per_second: float
    dense_p50_ms: float
    dense_p95_ms: float
    dense_per_second: float
    speedup: float


@dataclass(frozen=True)
class Deployed:
    """What a model has become on one target, and what that gains.

    Attributes:
        files: what was written, below the directory of the deployment.
        bytes, compressed_bytes: as written, and as a zip archive.
        dense_bytes, dense_compressed_bytes: of the dense model on this target.
        largest_difference, agreement, examples: outputs against the masked model, see
            ``Agreement``.
        latency: by batch size; None where this machine cannot run it.
        peak_bytes, dense_peak_bytes: see ``peak_memory.peak_bytes``.
        cannot_run: why this machine cannot run it.
        note: what is to be known of it.
        error: why there is no artefact; all else is empty then.
    """

    files: list[str] = field(default_factory=list)
    bytes: int | None = None
    compressed_bytes: int | None = None
    dense_bytes: int | None = None
    dense_compressed_bytes: int | None = None
    largest_difference: float | None = None
    agreement: float | None = None
    examples: int | None = None
    latency: dict[str, BatchLatency] | None = None
    peak_bytes: int | None = None
    dense_peak_bytes: int | None = None
    cannot_run: str | None = None
    note: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Deployment:
    """Artefacts of one model.

    Attributes:
        batch_sizes: that were measured.
        threads: that were computed with.
        zeros: share of zeros among the weights of two or more dimensions.
        targets: by name.
    """

    batch_sizes: list[int]
    threads: int
    zeros: float
    targets: dict[str, Deployed]

    @property
    def is_sparse(self) -> bool:
        """Whether zeros can gain anything: at least 1 % of the weights are 0."""
        return self.zeros >= SPARSE

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they stand in a record."""
        return asdict(self)


def deploy(
    model: nn.Module,
    inputs: Tensor,
    targets: Sequence[str],
    directory: str | Path,
    dense: nn.Module | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    thread_count: int = 1,
) -> Deployment:
    """Write what a model becomes on targets, and measure what that gains on this machine.

    Each artefact is compared with the model on all inputs. Where this machine can run it, its calls
    are timed in turns with those of the dense model. A target that fails says why, and the others
    are built.

    Args:
        model: plain, with its zeros in its weights; it stays as it is. It is copied to the CPU.
        inputs: real ones, ``(examples, ...)``, at least one.
        targets: ``"torch"``, ``"sparse_cpu"``, ``"onnx"``, ``"coreml"``, ``"coreai"``.
        directory: each target has a folder in it, which is made anew.
        dense: the dense model, None = a copy of the model whose zeros have random values.
        batch_sizes: sizes to measure, each >= 1.
        thread_count: threads to compute with, >= 1.

    Raises:
        ValueError: no target has one of the names, or there are no inputs.
        OSError: the directory cannot be written to.
    """
    for name in targets:
        if name not in TARGETS:
            raise ValueError(f"no target is called {name!r}; {nearest(name, list(TARGETS))}")
    if not len(inputs):
        raise ValueError("there are no inputs; allowed: at least one")
    Path(directory).mkdir(parents=True, exist_ok=True)
    plain = copy_of(model).cpu().eval().requires_grad_(False)
    twin = (dense_twin(plain) if dense is None else copy_of(dense)).cpu().eval()
    bench = _Bench(plain, twin, inputs.detach().cpu(), tuple(batch_sizes), thread_count)
    made = {}
    with threads(thread_count):
        for name in targets:
            made[name] = bench.deployed(name, Path(directory))
    return Deployment(list(batch_sizes), thread_count, share_of_zeros(plain), made)


@dataclass(frozen=True)
class _Bench:
    """A model and its dense twin, and what they are measured with."""

    model: nn.Module
    dense: nn.Module
    inputs: Tensor
    batch_sizes: tuple[int, ...]
    thread_count: int

    def deployed(self, name: str, directory: Path) -> Deployed:
        try:
            return self._deployed(target_of(name), directory)
        except OSError:
            raise
        except Exception as error:  # of a converter; the others are built
            sentence = str(error) if isinstance(error, DeployError) else _sentence(name, error)
            return Deployed(error=sentence)

    def _deployed(self, target: Target, directory: Path) -> Deployed:
        folder = directory / target.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        artefact = target.build(self.model, self.inputs[: max(self.batch_sizes)], folder)
        with tempfile.TemporaryDirectory() as beside:
            twin = target.build(self.dense, self.inputs[:1], Path(beside))
            dense_sizes = written_bytes(twin.files), compressed_bytes(twin.files)
        facts: dict[str, Any] = {
            "files": [str(path.relative_to(directory)) for path in artefact.files],
            "bytes": written_bytes(artefact.files),
            "compressed_bytes": compressed_bytes(artefact.files),
            "dense_bytes": dense_sizes[0],
            "dense_compressed_bytes": dense_sizes[1],
            "cannot_run": artefact.cannot_run,
            "note": artefact.note,
        }
        return Deployed(**facts, **({} if artefact.run is None else self._measured(artefact)))

    def _measured(self, artefact: Artefact) -> dict[str, Any]:
        assert artefact.run is not None
        largest = batch_of(self.inputs, max(self.batch_sizes))
        return {
            **asdict(compare(artefact.run, self.model, self.inputs)),
            "latency": {str(size): self._latency(artefact.run, size) for size in self.batch_sizes},
            "peak_bytes": peak_bytes(artefact.run, largest, self.thread_count),
            "dense_peak_bytes": self._dense_peak,
        }

    @cached_property
    def _dense_peak(self) -> int | None:
        largest = batch_of(self.inputs, max(self.batch_sizes))
        return peak_bytes(self.dense, largest, self.thread_count)

    def _latency(self, run: Callable[[Tensor], Any], size: int) -> BatchLatency:
        batch = batch_of(self.inputs, size)
        with torch.inference_mode():
            own, dense = latencies([partial(run, batch), partial(self.dense, batch)])
        return BatchLatency(
            own.p50_ms,
            own.p95_ms,
            1e3 * size / own.mean_ms,
            dense.p50_ms,
            dense.p95_ms,
            1e3 * size / dense.mean_ms,
            dense.p50_ms / own.p50_ms,
        )


def _sentence(name: str, error: Exception) -> str:
    words = " ".join(str(error).split()) or "no reason was given"
    return f"{name}: {type(error).__name__}: {words}"
