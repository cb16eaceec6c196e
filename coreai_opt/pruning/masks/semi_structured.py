"""2:4 sparse weights for the sparse tensor cores of NVIDIA GPUs."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

DTYPES = (torch.float16, torch.bfloat16)
# What both of torch's backends (CUTLASS and cuSPARSELt) take, for 16-bit weights.
ROWS, COLUMNS = 32, 64
CAPABILITY = (8, 0)  # Ampere, the first with sparse tensor cores


def to_semi_structured(model: nn.Module) -> dict[str, str | None]:
    """Replace 2:4 sparse linear weights by ones that sparse tensor cores multiply with, in place.

    For inference: the new weights (``torch.sparse.to_sparse_semi_structured``, a prototype of
    torch's) have no gradients. All other layers stay as they are.

    Args:
        model: a finalized model, in 16 bits and on the GPU.

    Returns:
        For each linear layer None when it was converted, else the reason why not.

    Example:
        >>> to_semi_structured(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
        {'0': 'its weight is not 2:4 sparse: of every 4 weights in a row at least 2 must be zero'}
    """
    return {
        name: _convert(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def _convert(module: nn.Linear) -> str | None:
    if reason := _problem(module):
        return reason
    weight = module.weight.detach().contiguous()
    try:
        sparse = torch.sparse.to_sparse_semi_structured(weight)
        # A weight may be converted on a GPU whose kernel is missing: it is tried once.
        nn.functional.linear(weight.new_zeros(ROWS, weight.shape[1]), sparse)
    # Whatever this build of torch or this GPU lacks, the layer works as it is.
    except (RuntimeError, ValueError, AttributeError) as error:
        return f"torch refuses it: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    module.weight = nn.Parameter(sparse, requires_grad=False)
    return None


def _problem(module: nn.Linear) -> str | None:
    if not hasattr(torch.sparse, "to_sparse_semi_structured"):
        return f"torch {torch.__version__} has no torch.sparse.to_sparse_semi_structured"
    if parametrize.is_parametrized(module, "weight"):
        return "its weight carries a mask or another parametrization: finalize the model first"
    if type(module) is not nn.Linear:
        return f"it is a {type(module).__name__}, which may use its weight in another way"
    if type(module.weight) is not nn.Parameter:
        return f"its weight is a {type(module.weight).__name__} already"
    return _problem_of_weight(module.weight) or _problem_of_device(module.weight.device)


def _problem_of_weight(weight: Tensor) -> str | None:
    rows, columns = weight.shape
    if weight.is_meta:
        return "its weight is on the device meta, where there are no values"
    if columns % 4 or not bool((weight.reshape(-1, 4).count_nonzero(dim=1) <= 2).all()):
        return "its weight is not 2:4 sparse: of every 4 weights in a row at least 2 must be zero"
    if weight.dtype not in DTYPES:
        return f"its weight is {weight.dtype}; allowed: {', '.join(map(str, DTYPES))}"
    if not rows or not columns or rows % ROWS or columns % COLUMNS:
        allowed = f"multiples of {ROWS} rows and of {COLUMNS} columns"
        return f"its weight has {rows} rows and {columns} columns; allowed: {allowed}"
    return None


def _problem_of_device(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"it is on the device {device.type}; allowed: cuda"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        has, needs = (".".join(map(str, pair)) for pair in (capability, CAPABILITY))
        return f"the GPU has compute capability {has}; allowed: {needs} and above"
    return None
