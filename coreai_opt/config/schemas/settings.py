"""The fields of our own config nodes: types, ranges and defaults. Imports nothing heavy.

Each field's description says what it is, with its unit and range; errors and ``--help`` quote it.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("trains nothing")
    return value


def _batches_or_share(value: Any) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    is_share = isinstance(value, float) and 0 <= value <= 1
    if value is None or is_count or is_share:
        return value
    raise ValueError("is neither a number of batches nor a share from 0.0 to 1.0")


def _not_none_of_them(value: Any) -> Any:
    if value == 0:
        raise ValueError("trains on nothing")
    return value


def _off_of_yaml(value: Any) -> Any:
    # In a file of its own an unquoted off is false.
    return "off" if value is False else value


def _typed_only(value: bool) -> bool:
    # The command takes it out of what is typed: here it comes from a file, and nobody would look.
    if value:
        raise ValueError("counts where it is typed on the command line; allowed: false in a config")
    return value


def _as_text(value: Any) -> Any:
    # sweep_name=3 is a name too.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _names_or_lists(value: list[Any] | None) -> list[Any] | None:
    lists = [item for item in value or [] if isinstance(item, list)]
    names = [name for part in lists for name in part] if lists else value or []
    if all(isinstance(name, str) for name in names) and len(lists) in (0, len(value or [])):
        return value
    raise ValueError("is neither names nor lists of names")


Batches = Annotated[Any, AfterValidator(_batches_or_share)]
Some = AfterValidator(_not_none_of_them)
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Limit = Annotated[int, Field(ge=-1), AfterValidator(_not_zero)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base: unknown fields and infinite numbers are refused."""

    # Each class is built when it first validates: a command touches three or four of them.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)


class RootSettings(Settings):
    """What stands at the root and belongs to no group."""

    seed: int = Field(1, ge=0, lt=2**32, description="seed of all random numbers, 0 to 2**32 - 1")
    init_from: str | None = Field(
        None, min_length=1, description="file with the weights to start from, null = fresh ones"
    )

    deploy: list[Literal["torch", "sparse_cpu", "onnx", "coreml", "coreai"]] = Field(
        [], description="a list of torch, sparse_cpu, onnx, coreml, coreai"
    )
    resume: str = Field("auto", description="auto, never, or the path of a run or a checkpoint")
    warmup: Annotated[Literal["auto", "off"], BeforeValidator(_off_of_yaml)] = Field(
        "auto", description="auto or off"
    )
    trunk: Annotated[Literal["auto", "off"] | None, BeforeValidator(_off_of_yaml)] = Field(
        None, description="auto or off, null = what warmup says"
    )
    resume_force: bool = Field(False, description="true or false")
    sweep_name: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None, min_length=1, description="a name, null = from what varies"
    )
    preview: Annotated[bool, AfterValidator(_typed_only)] = Field(
        False, description="true or false"
    )


class SweepSettings(Settings):
    """What a sweep does with its runs."""

    retry: Literal["all", "failed", "none"] = Field("failed", description="all, failed or none")
    on_code_change: Literal["warn", "rerun", "error"] = Field(
        "warn", description="warn, rerun or error"
    )
    fail_fast: bool = Field(False, description="true or false")
    zip: Annotated[list[Any] | None, AfterValidator(_names_or_lists)] = Field(
        None, description="names of knobs whose lists are paired: [power,total_iters]"
    )


class CheckpointSettings(Settings):
    """When a run writes a checkpoint to go on from."""

    every_n_steps: int | None = Field(
        500, ge=1, description="optimizer steps, >= 1; null = none within an epoch"
    )
    every_n_epochs: int | None = Field(1, ge=1, description="epochs, >= 1; null = none")
    keep: int = Field(2, ge=1, description="files, >= 1")


class ObjectiveSettings(Settings):
    """What a run is judged by."""

    name: str = Field("val/accuracy", description="name of a logged validation metric")
    mode: Literal["min", "max"] = Field("max", description="min or max")


class _ImageModelSettings(Settings):
    input_shape: list[Positive] = Field(
        description="channels, height, width of an image, each >= 1"
    )
    num_classes: Positive = Field(description="number of classes, >= 1")


class MLPSettings(_ImageModelSettings):
    """``coreai_opt.models.MLP``."""

    hidden: list[Positive] = Field([300, 100], description="widths of the hidden layers, each >= 1")


class ConvNetSettings(_ImageModelSettings):
    """``coreai_opt.models.ConvNet``."""

    channels: list[Positive] = Field([16, 32], description="channels of the convolutions, >= 1")


class ResNetSettings(_ImageModelSettings):
    """``coreai_opt.models.ResNet``."""

    width: Positive = Field(8, description="channels of the first stage, >= 1")
    blocks: Positive = Field(1, description="residual blocks in each of three stages, >= 1")


class TransformerSettings(_ImageModelSettings):
    """``coreai_opt.models.TransformerClassifier``."""

    width: Positive = Field(64, description="size of a token, >= 1, a multiple of heads")
    depth: Positive = Field(2, description="encoder layers, >= 1")
    heads: Positive = Field(4, description="attention heads, >= 1")


class ImageDataSettings(Settings):
    """``coreai_opt.data.ImageDataModule`` and its children."""

    batch_size: Positive = Field(64, description="images a batch and process, >= 1")
    num_workers: Natural = Field(0, description="processes that load data, >= 0")
    num_train: Positive = Field(description="images to train on, >= 1")
    num_val: Positive = Field(description="images to validate on, >= 1")
    split_seed: Natural = Field(0, description="seed of the split, >= 0")
    seed: Natural = Field(0, description="seed of the order of batches, >= 0")
    input_shape: list[Positive] = Field(
        description="channels, height, width of an image, each >= 1"
    )
    num_classes: Positive = Field(description="number of classes, >= 1")


class TorchvisionSettings(ImageDataSettings):
    """The data sets that come through torchvision."""

    root: str = Field("data", description="folder that the data is kept in")
    download: bool = Field(True, description="fetch the data when it is not there")


class SGDSettings(Settings):
    """``torch.optim.SGD``, with a learning-rate schedule."""

    lr: float = Field(0.1, gt=0, description="learning rate, > 0")
    momentum: Share = Field(0.9, description="momentum, 0 to 1")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, >= 0")
    nesterov: bool = Field(False, description="Nesterov's momentum")
    lr_schedule: dict[str, Any] | None = Field(
        None, description="called with optimizer and total_steps, null = fixed learning rate"
    )


class AdamWSettings(Settings):
    """``torch.optim.AdamW``, with a learning-rate schedule."""

    lr: float = Field(0.001, gt=0, description="learning rate, > 0")
    betas: list[Share] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="decay of the two means, 0 to 1"
    )
    eps: float = Field(1e-8, ge=0, description="added to the denominator, >= 0")
    weight_decay: float = Field(0.01, ge=0, description="weight decay, >= 0")
    lr_schedule: dict[str, Any] | None = Field(
        None, description="called with optimizer and total_steps, null = fixed learning rate"
    )


class TrainerSettings(Settings):
    """``pytorch_lightning.Trainer``: what is often set; ``+trainer.KEY=`` gives any other key."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, defer_build=True)

    max_epochs: Limit = Field(10, description="passes over the data, >= 1; -1 = no limit")
    max_steps: Limit = Field(-1, description="optimizer steps, >= 1; -1 = no limit")
    accelerator: str = Field("auto", description="auto, cpu, gpu, mps or tpu")
    devices: Annotated[Any, Some] = Field(
        1, description="devices: a number, a list of indices, or auto"
    )
    num_nodes: Positive = Field(1, description="machines, >= 1")
    strategy: str = Field("auto", description="auto, or ddp for several devices")
    precision: Any = Field("32-true", description="32-true, bf16-mixed, 16-mixed, 64-true, ...")
    accumulate_grad_batches: Positive = Field(1, description="batches an optimizer step, >= 1")
    gradient_clip_val: float | None = Field(
        None, ge=0, description="largest norm, >= 0; null = none"
    )
    limit_train_batches: Annotated[Batches, Some] = Field(
        None, description="batches or share an epoch, null = all"
    )
    limit_val_batches: Batches = Field(None, description="batches or share, null = all")
    limit_test_batches: Batches = Field(None, description="batches or share, null = all")
    check_val_every_n_epoch: int | None = Field(
        1, ge=1, description="epochs between validations, >= 1"
    )
    log_every_n_steps: Natural = Field(10, description="steps between two rows of metrics, >= 0")
    num_sanity_val_steps: int = Field(
        0, ge=-1, description="validation batches before training, >= 0; -1 = all"
    )
    deterministic: Any = Field(None, description="true, false or warn; null = Lightning's default")
    enable_model_summary: bool = Field(False, description="Lightning's own table of layers")
    enable_progress_bar: bool = Field(True, description="the progress bar; off without a terminal")
    default_root_dir: str | None = Field(None, description="directory of the run")


class ScheduledPruningSettings(Settings):
    """``lightning_callbacks.ScheduledPruning``."""

    schedule: Any = Field(None, description="the schedule, null = dense")
    config: Any = Field(None, description="what is pruned how far")
    interval: Literal["step", "epoch", "percent"] = Field(
        "step", description="what the schedule counts: step, epoch or percent"
    )
    follow_calls: bool = Field(
        False, description="whether weights are found by following the forward pass"
    )
    masks_from: Literal["schedule", "zeros"] = Field(
        "schedule", description="schedule, or zeros: the zeros of init_from are kept as masks"
    )


class SparsityMonitorSettings(Settings):
    """``lightning_callbacks.SparsityMonitor``."""

    csv_path: str | None = Field("sparsity.csv", description="file in the run directory")
    every_n_steps: int | None = Field(
        None, ge=1, description="steps between two counts, >= 1; null = trainer.log_every_n_steps"
    )
