"""Apps that have a ``prune`` of their own: theirs stays as it is, and ours has another name."""

from pathlib import Path

import pytest

from tests.plugin.conftest import Ask, MakeApp

SHARED = "hydra: {searchpath: ['file://SHARED']}\n"
STORE = "from hydra.core.config_store import ConfigStore\nstore = ConfigStore.instance().store\n"

REFUSED = (
    "+prune=poly: this app has a 'prune' of its own; allowed: +coreai_prune=poly, with knobs as "
    "coreai_prune.power=2\n"
)

VALUES = {
    "a number": ("prune: 0.1\n", "prune=0.5", 0.5),
    "a text": ("prune: hard\n", "prune=soft", "soft"),
    "null": ("prune: null\n", "prune=poly", "poly"),
    "not given": ("prune: ???\n", "prune=0.5", 0.5),
    "a node": ("prune: {amount: 0.2}\n", "prune.amount=0.3", {"amount": 0.3}),
}


QUICK_ONES = [("a number", "store")]


@pytest.mark.parametrize(
    ("config", "typed", "value", "where"),
    [
        pytest.param(
            *given,
            where,
            id=f"{name}-{where}",
            marks=[] if (name, where) in QUICK_ONES else [pytest.mark.slow],
        )
        for name, given in VALUES.items()
        for where in ("file", "store")
    ],
)
def test_a_value_of_an_app_stays_one(
    app: MakeApp, config: str, typed: str, value: object, where: str
) -> None:
    if where == "file":
        ask = app(config=config)
    else:
        made = f"store(name='config', node=OmegaConf.create({config!r}))"
        ask = app(before=f"{STORE}{made}", has_files=False)
    assert ask(typed).config == {"prune": value}
    # Where Hydra could put ours over it, that is refused; the app has it as it was.
    refused = ask("+prune=poly")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(REFUSED)
    assert "Traceback" not in refused.err
    both = ask("+coreai_prune=poly", "coreai_prune.power=2", typed).config
    assert (both["prune"], both["coreai_prune"]["power"]) == (value, 2)


def own_options(app: MakeApp, shared: Path, where: str) -> Ask:
    """Return an app that has options ``poly`` and ``l1`` of a group ``prune`` of its own."""
    if where == "its folder":
        return app(prune__poly="mine: 1\n", prune__l1="mine: 2\n")
    options = {"poly": 1, "l1": 2}
    if where == "its search path":
        (shared / "prune").mkdir(parents=True)
        for name, mine in options.items():
            (shared / "prune" / f"{name}.yaml").write_text(f"mine: {mine}\n")
        return app(config=SHARED.replace("SHARED", str(shared)))
    stored = [f"store(group='prune', name={n!r}, node={{'mine': {m}}})" for n, m in options.items()]
    return app(before=STORE + "\n".join(stored))


@pytest.mark.parametrize(
    "where",
    [
        "its folder",
        pytest.param("its search path", marks=pytest.mark.slow),
        pytest.param("Hydra's store", marks=pytest.mark.slow),
    ],
)
def test_a_group_of_the_app_wins_and_is_not_mixed_with_ours(
    app: MakeApp, tmp_path: Path, where: str
) -> None:
    ask = own_options(app, tmp_path / "shared", where)
    assert ask("+prune=l1").config["prune"] == {"mine": 2}
    assert ask("+coreai_prune=poly", "+prune=poly").config["prune"] == {"mine": 1}
    refused = ask("+prune=linear")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(REFUSED.replace("poly", "linear"))
    assert "Could not find 'prune/l2'" in ask("+prune=l2").err


def test_help_lists_the_name_that_is_free(app: MakeApp) -> None:
    said = app(config="prune: 0.1\n")("--help").out
    assert "\ncoreai_prune: constant, " in said
    assert "\nprune: constant" not in said


def test_a_folder_on_the_command_line_counts(app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "more" / "prune").mkdir(parents=True)
    (tmp_path / "more" / "prune" / "poly.yaml").write_text("mine: 2\n")
    assert app()(f"--config-dir={tmp_path / 'more'}", "+prune=poly").config["prune"] == {"mine": 2}


def test_a_file_that_cannot_be_read_is_no_matter(app: MakeApp) -> None:
    assert app(broken="a: [\n")("+prune=poly").config["prune"]["schedule"] == "poly"


def test_an_option_in_a_package_is_refused(app: MakeApp) -> None:
    refused = app()("+prune@train=poly")
    assert refused.code == 1
    assert refused.err.startswith("+prune@train=poly: an option of ours says itself where it goes")
    assert "; allowed: +prune=poly\n" in refused.err


def test_an_option_that_is_not_there_is_hydras_own_refusal(app: MakeApp) -> None:
    refused = app()("+prune=polly")
    assert "Could not find 'prune/polly'" in refused.err
    assert "poly" in refused.err.partition("Available options")[2]


TYPED = """
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore

@dataclass
class Config:
    lr: float = 0.1
    width: int = 8

ConfigStore.instance().store(name="NAME", node=Config)
"""


@pytest.mark.parametrize(
    "is_base",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["the root", "the base of a file"],
)
def test_a_typed_root(app: MakeApp, is_base: bool) -> None:
    if is_base:
        before = TYPED.replace("NAME", "base")
        ask = app(before=before, config="defaults: [base, _self_]\nlr: 0.1\n")
    else:
        ask = app(before=TYPED.replace("NAME", "config"), has_files=False)
    refused = ask("+prune=poly", "--cfg=job")
    assert refused.code == 1
    assert refused.err.startswith(
        "+prune=poly: the config of this app is of the class Config, which has no key 'prune'; "
        "allowed: +prune_typed=poly, with knobs as hydra.callbacks.prune.power=2\n"
    )
    said = ask("+prune_typed=poly", "hydra.callbacks.prune.power=2", "lr=0.2")
    assert said.config == {"lr": 0.2, "width": 8}
    assert (
        "power: 2" in ask("+prune_typed=poly", "hydra.callbacks.prune.power=2", "--cfg=hydra").out
    )


def test_a_typed_root_of_another_config_is_no_matter(app: MakeApp) -> None:
    before = TYPED.replace("NAME", "other")
    ask = app(before=before)
    assert ask("+prune=poly").config["prune"]["schedule"] == "poly"
    assert "of the class Config" in ask("--config-name=other", "+prune=poly").err
