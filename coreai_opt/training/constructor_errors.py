"""Constructor errors: refused arguments, or a failure of the constructor's own code."""

import dis
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, TracebackType
from typing import Any

from hydra.utils import get_object

from coreai_opt.config.errors import message_of

# Whose code is not the user's.
OF_OTHERS = (
    *("coreai_opt", "lightning_callbacks", "torch", "pytorch_lightning", "lightning"),
    *("lightning_fabric", "lightning_utilities", "pydantic", "hydra", "omegaconf"),
)

RAISE = dis.opmap["RAISE_VARARGS"]

CONSTRUCTORS = ("__new__", "__init__", "__post_init__")

# Message of Python for a call that does not fit the signature of a class.
OF_A_CALL = re.compile(r"(\w+)\.__(?:init|new)__\(\)")


def is_about_arguments(error: BaseException, target: str) -> bool:
    """Return whether a TypeError or ValueError refuses the arguments of a call.

    It does where the call itself raises it, where a constructor of Lightning's, torch's or ours
    does, or what that one calls, and where one of the user's own says so by ``raise``. Whatever
    else fails within the user's own is a fault of that code.

    Args:
        error: with its traceback, from Hydra's call on.
        target: dotted path of the called object.
    """
    frames = [one for one in _frames(error.__traceback__) if _package(one) != "hydra"]
    if not frames or target.partition(".")[0] in OF_OTHERS:
        return True
    called = None
    with suppress(Exception):  # it has just been called, and so is there
        called = get_object(target)
    codes = set(_codes(called))
    for frame in reversed(frames):
        if _package(frame) not in OF_OTHERS:
            break
        if frame.tb_frame.f_code in codes:
            return True
    last = frames[-1]
    if last.tb_frame.f_code not in codes:
        return False
    # The line is a raise, and no call of something that is written in C.
    is_raise = last.tb_frame.f_code.co_code[last.tb_lasti] == RAISE
    return is_raise or _is_of_the_call(error, called)


def place_of(error: BaseException) -> str:
    """Return ``, at FILE:LINE`` of the last line of a user's own, empty where there is none."""
    own = [one for one in _frames(error.__traceback__) if _is_of_a_user(one)]
    return f", at {own[-1].tb_frame.f_code.co_filename}:{own[-1].tb_lineno}" if own else ""


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _package(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_of_a_user(trace: TracebackType) -> bool:
    package = _package(trace)
    is_written = not trace.tb_frame.f_code.co_filename.startswith("<")  # as a dataclass's is not
    return is_written and package not in OF_OTHERS and package not in sys.stdlib_module_names


def _codes(called: Any) -> Iterator[CodeType]:
    """Yield the code of a function, or of all constructors of a class."""
    kinds = called.__mro__ if inspect.isclass(called) else ()
    functions = [vars(kind).get(name) for kind in kinds for name in CONSTRUCTORS] or [called]
    for function in functions:
        function = getattr(function, "__func__", function)
        while function is not None:
            if (code := getattr(function, "__code__", None)) is not None:
                yield code
            function = getattr(function, "__wrapped__", None)


def _is_of_the_call(error: BaseException, called: Any) -> bool:
    match = OF_A_CALL.search(message_of(error)) if isinstance(error, TypeError) else None
    if match is None or not inspect.isclass(called):
        return match is not None
    return match[1] in [kind.__name__ for kind in called.__mro__]
