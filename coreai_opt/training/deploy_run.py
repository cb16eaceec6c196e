"""Deployment of a run: at its end, where its config asks for it, and of a finished one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coreai_opt.config.errors import ConfigError
from coreai_opt.deploy.deployment import Deployment, deploy
from coreai_opt.deploy.terminal import deployment_sentences
from coreai_opt.runs.existing_run import ExistingRun, read_json
from coreai_opt.runs.outcome import missing_targets
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import write_json
from coreai_opt.training.finished_run import FinishedRun, NoRunError, load_run

EXAMPLES = 1024
"""Test inputs on which outputs are compared, at most."""


def deploy_run(
    run: FinishedRun,
    targets: Sequence[str],
    directory: Path | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    thread_count: int = 1,
) -> Deployment:
    """Deploy the network of a run into ``deploy/`` in its directory, measured on its test data.

    Args:
        run: the run.
        targets, batch_sizes, thread_count: as for ``deploy``.
        directory: where to instead.

    Raises:
        NoRunError: the run's data gives no tensors.
        ValueError: no target has one of the names.
        OSError: the directory cannot be written to.
    """
    inputs = run.test_inputs(EXAMPLES)
    return deploy(
        run.network,
        inputs,
        targets,
        run.paths.deploy if directory is None else directory,
        batch_sizes=batch_sizes,
        thread_count=thread_count,
    )


def deployed_at_the_end(paths: RunPaths, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the record says of the deployment that a config asks for, None = none.

    The training is done and measured: what fails here is said and is no failure of the run.
    """
    names = list(config.get("deploy") or ())
    if not names:
        return None
    try:
        made = deploy_run(load_run(paths.weights), names)
    except (ConfigError, NoRunError, OSError, ValueError, RuntimeError, TypeError) as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        return {**_empty(), "targets": {name: {"error": f"{name}: {sentence}"} for name in names}}
    return made.to_dict()


def deploy_again(run: FinishedRun, targets: Sequence[str], **settings: Any) -> dict[str, Any]:
    """Deploy a finished run, and put what came of it into its record beside what is there.

    Args:
        run: the run; no other process may be at work in its directory.
        targets: as for ``deploy``.
        settings: further arguments of ``deploy_run``.

    Returns:
        The record's ``deploy`` as it is now.

    Raises:
        NoRunError, ValueError, OSError: as ``deploy_run`` does.
    """
    now = deploy_run(run, targets, **settings).to_dict()
    record = read_json(run.paths.result) or {}
    before = (record.get("deploy") or {}).get("targets") or {}
    now["targets"] = {**before, **now["targets"]}
    write_json(run.paths.result, {**record, "deploy": now})
    return now


def complete_deployment(run: ExistingRun, config: Mapping[str, Any]) -> None:
    """Deploy a completed run to what a config asks for and its record does not have."""
    missing = missing_targets(config, run.record)
    made = deploy_again(load_run(run.paths.root), missing)
    for sentence in deployment_sentences(made):
        print(sentence)


def _empty() -> dict[str, Any]:
    return {"batch_sizes": [], "threads": None, "zeros": None, "targets": {}}
