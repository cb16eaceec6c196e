"""What an app has under our key in files that are no primary config is not put over silently."""

import pytest

from tests.plugin.conftest import MakeApp

GLOBAL = "# @package _global_\n"

OWN = {
    "an experiment": ({"experiment__e": f"{GLOBAL}prune: 0.3\n"}, "experiment/e"),
    "a node of it": ({"experiment__e": f"{GLOBAL}prune: {{amount: 0.3}}\n"}, "experiment/e"),
    "a config below the primary one": (
        {"config": "defaults: [sub/common, _self_]\n", "sub__common": f"{GLOBAL}prune: 0.3\n"},
        "sub/common",
    ),
    "one that an experiment is based on": (
        {
            "experiment__e": f"{GLOBAL}defaults: [base]\n",
            "experiment__base": f"{GLOBAL}prune: 0.3\n",
        },
        "experiment/base",
    ),
    "one that it names from the root": (
        {"experiment__e": f"{GLOBAL}defaults: [/base]\n", "base": "lr: 1\nprune: 0.3\n"},
        "base",
    ),
}


@pytest.mark.parametrize(
    ("files", "where"),
    [
        pytest.param(*given, id=name, marks=[] if name == "an experiment" else [pytest.mark.slow])
        for name, given in OWN.items()
    ],
)
def test_a_value_in_any_file_of_a_job_is_refused(
    app: MakeApp, files: dict[str, str], where: str
) -> None:
    ask = app(**files)
    chosen = ["+experiment=e"] if "experiment__e" in files else []
    said = ask("+prune=poly", *chosen)
    assert (said.code, said.out) == (1, "")
    assert "'prune' of its own; allowed: +coreai_prune=poly" in said.err
    if where != "base":  # that one may be a primary config as well
        assert f"+prune=poly: {where} of this app has a 'prune' of its own" in said.err
    both = ask("+coreai_prune=poly", *chosen).config
    assert both["coreai_prune"]["schedule"] == "poly"
    assert both["prune"] in (0.3, {"amount": 0.3})


KNOBS = "prune: {power: 2, target_sparsity: 0.6}\n"


def test_knobs_in_a_file_count_or_are_refused(app: MakeApp) -> None:
    ask = app(
        experiment__late=f"{GLOBAL}{KNOBS}",
        experiment__right=f"{GLOBAL}defaults: ['/prune: poly']\n{KNOBS}".replace("'", ""),
    )
    said = ask("+experiment=late", "+prune=poly")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "error: +prune=poly is put over prune.power, prune.target_sparsity of experiment/late, "
        "which would not count; allowed: '- /prune: poly' in the defaults of that file, without "
        "+prune=poly\n"
    )
    config = ask("+experiment=right").config
    assert (config["prune"]["power"], config["prune"]["target_sparsity"]) == (2, 0.6)


def test_files_that_say_something_else_are_no_clash(app: MakeApp) -> None:
    ask = app(experiment__e=f"{GLOBAL}lr: 1\nmodel: {{prune: 1}}\n", model__prune="prune: 2\n")
    config = ask("+experiment=e", "+model=prune", "+prune=poly").config
    assert (config["model"], config["prune"]["schedule"]) == ({"prune": 2}, "poly")
