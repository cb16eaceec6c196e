"""Schedule clock: one step counter that all masks of a model share."""

from dataclasses import dataclass, field


@dataclass
class ScheduleClock:
    """The steps finished; one object shared by all masks of a model, so that they cannot differ."""

    step_count: int = 0
    _loading: list[str] | None = field(default=None, compare=False, repr=False)
    _loaded_from: str = field(default="", compare=False, repr=False)
    _from_static: bool = field(default=False, compare=False, repr=False)

    def load(self, step_count: int, key: str, is_static: bool, errors: list[str]) -> None:
        """Take the step that a state dict has for a mask under a key.

        A mask without a schedule (``is_static``) may stand at 0 where others have gone on. What is
        wrong is added to the errors; one list of them is one loading.
        """
        is_first = self._loading is not errors
        if not is_first and step_count != self.step_count:
            if is_static and step_count == 0 and not self._from_static:
                return
            if is_static or not self._from_static or self.step_count != 0:
                errors.append(
                    f"the masks stand at different steps: {self._loaded_from!r} is "
                    f"{self.step_count} and {key!r} is {step_count}; allowed: one step for all "
                    "masks of a model"
                )
                return
        self._from_static = is_static and (is_first or self._from_static)
        self.step_count, self._loading, self._loaded_from = step_count, errors, key
