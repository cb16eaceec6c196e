"""Targets by name; the modules that need further packages are imported when they are asked for."""

from importlib import import_module
from typing import NamedTuple

from coreai_opt.deploy.artefact import DeployError, Target
from coreai_opt.pruning._registry import nearest


class _Entry(NamedTuple):
    module: str
    kind: str


TARGETS = {
    "torch": _Entry("torch_targets", "TorchTarget"),
    "sparse_cpu": _Entry("torch_targets", "SparseCPUTarget"),
    "onnx": _Entry("onnx_target", "ONNXTarget"),
    "coreml": _Entry("coreml_target", "CoreMLTarget"),
    "coreai": _Entry("coreai_target", "CoreAITarget"),
}


def target_of(name: str) -> Target:
    """Return the target of a name.

    Raises:
        ValueError: no target has that name; the message lists those there are.
        DeployError: a package that it needs is not installed.
    """
    if name not in TARGETS:
        raise ValueError(f"no target is called {name!r}; {nearest(name, [*TARGETS])}")
    entry = TARGETS[name]
    try:
        module = import_module(f"coreai_opt.deploy.{entry.module}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        install = f"pip install 'hydra-coreai-opt[{name}]'"
        raise DeployError(name, f"{package} is not installed: {install}") from error
    target: Target = getattr(module, entry.kind)()
    return target
