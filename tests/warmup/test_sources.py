"""The code of a warm-up that neither commit nor versions tell."""

from pathlib import Path

from coreai_opt.warmup import sources
from coreai_opt.warmup.sources import changed_sources, sources_of_this_process


def test_code_outside_of_a_checkout_counts_by_what_is_in_the_file(
    user_module: str, tmp_path: Path
) -> None:
    __import__(user_module)
    known = sources_of_this_process()
    assert changed_sources(known) == []
    source = tmp_path / "their_code.py"
    source.write_text(source.read_text() + "\nCHANGED = 1\n")
    assert changed_sources(known) == [str(source)]
    source.unlink()
    assert changed_sources(known) == []
    assert changed_sources({**known, "packages": "0"}) == ["coreai_opt"]


def test_of_all_code_that_is_loaded_only_the_users_own_is_read(user_module: str) -> None:
    __import__(user_module)
    paths = [*sources._own_modules(), *sources._packages()]
    assert {"their_code.py", "start.py", "clock.py"} <= {path.name for path in paths}
    assert not {"site-packages", "torch", "json"} & {part for path in paths for part in path.parts}
