"""``--help``, written for people and made from the config tree's own comments."""

from collections.abc import Iterator

from coreai_opt.config.groups import Knob, config_groups, root_knobs

HEAD = """\
Trains a model while pruning it on a schedule, and records the run.

  {command} schedule=poly power=2
  {command} model=convnet data=digits target_sparsity=0.95 total_iters=200
  {command} -m schedule=poly power=1,2,3 total_iters=200,400
  {command} -m hydra/launcher=slurm schedule=poly power=1,2,3

Give GROUP=OPTION to choose, KNOB=VALUE to set, and any other key by its path
(data.batch_size=128). With -m, lists of values are crossed into a sweep;
hydra/launcher=joblib, slurm or ray runs it elsewhere (docs/clusters.md).
With preview=true nothing is run: what would be is shown, with its schedules and
how long it will take."""

TAIL = """\
Your own classes: model._target_=my.module.Net, data._target_=my.module.Data.
Further: --cfg job shows the whole config, --hydra-help what Hydra itself offers,
HYDRA_FULL_ERROR=1 in front keeps stack traces."""


def help_text(command: str = "python train.py") -> str:
    """Return what ``--help`` prints.

    Args:
        command: how the program was called.
    """
    parts = [HEAD.format(command=command), _groups(), _knobs(), TAIL]
    return "\n\n".join(parts)


def _groups() -> str:
    lines = ["Groups and their options"]
    for group in config_groups():
        lines.append(f"  {group.name}")
        width = max((len(option.name) for option in group.options), default=0)
        lines += [f"    {opt.name:<{width}}  {opt.summary}".rstrip() for opt in group.options]
    return "\n".join(lines)


def _knobs() -> str:
    rows = [*_option_knobs(), *((knob, "always") for knob in root_knobs())]
    merged: dict[tuple[str, str, str], list[str]] = {}
    for knob, where in rows:
        merged.setdefault((knob.name, knob.default, knob.comment), []).append(where)
    width = max(len(f"{name}={default}") for name, default, _ in merged)
    lines = ["Knobs, with their defaults"]
    for (name, default, comment), places in merged.items():
        where = "" if places == ["always"] else f"  [{_joined(places)}]"
        lines.append(f"  {f'{name}={default}':<{width}}  {comment}{where}")
    return "\n".join(lines)


def _joined(places: list[str]) -> str:
    """Return ``schedule=linear,poly`` for the options of one group, as a sweep is typed."""
    options: dict[str, list[str]] = {}
    for place in places:
        group, _, option = place.partition("=")
        options.setdefault(group, []).append(option)
    return ", ".join(f"{group}={','.join(names)}" for group, names in options.items())


def _option_knobs() -> Iterator[tuple[Knob, str]]:
    for group in config_groups():
        if group.name == "experiment":  # its files set the knobs of others
            continue
        for option in group.options:
            for knob in option.knobs:
                yield knob, f"{group.name}={option.name}"
