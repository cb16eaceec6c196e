"""A small language model, its groups of parameters, and an average of its weights."""

import copy

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unsqueeze(1) for part in self.c_attn(self.ln_1(x)).chunk(3, dim=-1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(mixed.squeeze(1))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.h = nn.ModuleList(Block(width) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

    def groups(self, weight_decay: float) -> list[dict]:
        """Decay the weights of linear layers alone; every parameter must be in one group."""
        decay, no_decay = set(), set()
        for module_name, module in self.named_modules():
            for name, _ in module.named_parameters(recurse=False):
                full = f"{module_name}.{name}" if module_name else name
                if name.endswith("bias"):
                    no_decay.add(full)
                elif name.endswith("weight") and isinstance(module, nn.Linear):
                    decay.add(full)
                elif name.endswith("weight") and isinstance(module, (nn.LayerNorm, nn.Embedding)):
                    no_decay.add(full)
        parameters = dict(self.named_parameters())
        assert not decay & no_decay, f"in both groups: {decay & no_decay}"
        missing = parameters.keys() - (decay | no_decay)
        assert not missing, f"in neither group: {missing}"
        return [
            {"params": [parameters[name] for name in sorted(decay)], "weight_decay": weight_decay},
            {"params": [parameters[name] for name in sorted(no_decay)], "weight_decay": 0.0},
        ]


class EMA:
    """An exponential moving average, parameter by parameter in their order."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for average, current in zip(self.model.parameters(), model.parameters(), strict=True):
            assert average.shape == current.shape
            average.lerp_(current, 1 - self.decay)
