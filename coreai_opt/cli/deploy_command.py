"""Command ``coreai-deploy``: artefacts of a trained model, and what they gain on this machine."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreai_opt.requirements import require_train

if TYPE_CHECKING:
    from torch import Tensor, nn

EPILOG = """\
examples:
  coreai-deploy outputs/2026-12-01/12-00-00 --targets torch sparse_cpu
  coreai-deploy mine.ckpt --network my.module.Net --inputs examples.pt --targets onnx
"""


def main(words: Sequence[str] | None = None) -> None:
    """Deploy a model.

    Exit codes: 0 for artefacts of all targets; 1 for wrong arguments, files that cannot be read or
    written, and a model without zeros; 2 where a target has none.

    Args:
        words: the arguments; default: those of the command line.
    """
    arguments = _parser().parse_args(words)
    require_train()
    from coreai_opt.config.errors import ConfigError, message_of
    from coreai_opt.deploy.terminal import deployment_sentences

    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # modules of the user's
    try:
        made = _of_network(arguments) if arguments.network else _of_run(arguments)
    except (ConfigError, OSError, ValueError) as error:
        sys.exit(f"error: {message_of(error)}")
    _show(made)
    for sentence in deployment_sentences(made):
        print(sentence)
    if any(one["error"] is not None for one in made["targets"].values()):
        sys.exit(2)


def _of_run(arguments: argparse.Namespace) -> dict[str, Any]:
    from coreai_opt.runs.context import only_process_in
    from coreai_opt.training.deploy_run import deploy_again
    from coreai_opt.training.finished_run import load_run

    run = load_run(arguments.model)
    _refuse_dense(run.network, arguments.model)
    with only_process_in(run.paths):
        made = deploy_again(run, arguments.targets, directory=arguments.out, **_settings(arguments))
    print(f"written: {arguments.out or run.paths.deploy}, and {run.paths.result}")
    return made


def _of_network(arguments: argparse.Namespace) -> dict[str, Any]:
    """Deploy the weights of a file in a network of the user's own."""
    import torch

    from coreai_opt.deploy import deploy
    from coreai_opt.training.build import locate
    from coreai_opt.training.finished_run import load_weights

    if arguments.inputs is None:
        raise ValueError("--network needs --inputs FILE, what torch.save has made of its inputs")
    network = locate(arguments.network, "--network")()
    load_weights(network, arguments.model)
    _refuse_dense(network, arguments.model)
    inputs: Tensor = torch.load(arguments.inputs, map_location="cpu", weights_only=True)
    out = arguments.out or Path("deploy")
    made = deploy(network, inputs, arguments.targets, out, **_settings(arguments))
    print(f"written: {out}")
    return made.to_dict()


def _refuse_dense(network: "nn.Module", path: Path) -> None:
    from coreai_opt.deploy.deployment import SPARSE
    from coreai_opt.deploy.sizes import share_of_zeros

    if (zeros := share_of_zeros(network)) < SPARSE:
        raise ValueError(f"nothing is sparse: {100 * zeros:.1f} % zeros in {str(path)!r}")


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"batch_sizes": arguments.batch_sizes, "thread_count": arguments.threads}


def _show(made: dict[str, Any]) -> None:
    from rich.console import Console

    from coreai_opt.deploy.terminal import deployment_table

    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, markup=False, emoji=False).print(deployment_table(made))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        sys.exit(f"error: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "coreai-deploy",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="a run directory, a checkpoint, or weights.pt")
    parser.add_argument(
        "--targets",
        nargs="+",
        default=["torch", "sparse_cpu"],
        metavar="TARGET",
        help="torch, sparse_cpu, onnx, coreml, coreai; default: torch sparse_cpu",
    )
    parser.add_argument("--out", type=Path, help="directory; default: deploy/ in the run's")
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=_positive,
        default=[1, 32],
        metavar="N",
        help="to measure; default: 1 32",
    )
    parser.add_argument("--threads", type=_positive, default=1, help="to compute with; default: 1")
    parser.add_argument(
        "--network",
        metavar="CLASS",
        help="class or function that makes the network of a file that is in no run, my.module.Net",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="with --network: real inputs, a tensor that torch.save has written",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
