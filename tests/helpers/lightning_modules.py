"""LightningModules as people write them: what else than a plain one a training has to prune."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.lightning import EvaluatedModule, ManualModule, TinyModule, momentum_sgd


class Adversarial(TinyModule):
    """Two networks that are trained against each other, by hand, each frozen in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.second.parameters(), lr=0.01)
        return [momentum_sgd(self.first.parameters()), adam]


class Accumulating(TinyModule):
    """Steps by hand once in two batches, by a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        self.manual_backward(self.loss(batch))
        if batch_idx % 2 == 1:
            optimizer.step(closure=lambda: None)
            optimizer.zero_grad()


class Alternating(ManualModule):
    """Two optimizers that step in turn."""

    def __init__(self) -> None:
        super().__init__(lambda batch: (batch % 2,))


class Late(TinyModule):
    """All layers are made in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__()
        del self.first, self.second

    def configure_model(self) -> None:
        if not hasattr(self, "first"):
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)


class CompiledPart(TinyModule):
    """Its first layer is compiled by itself."""

    def __init__(self, backend: str = "eager") -> None:
        super().__init__()
        self.first = torch.compile(self.first, backend=backend)


class Backbone(nn.Module):
    """Stages of blocks with a head, named and nested as timm's models are.

    It stands for them: timm itself needs torchvision, which has no build for the torch of the
    tests, and takes Lightning's import down with it where it is installed all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 4, 3, padding=1)
        self.stages = nn.Sequential(Block(), Block())
        self.head = nn.ModuleDict({"fc": nn.Linear(4, 4)})

    def forward(self, features: Tensor) -> Tensor:
        features = self.stages(self.stem(features.unsqueeze(1)))
        head: Tensor = self.head["fc"](features.mean(-1))
        return head


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_dw = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm1d(4)
        self.conv_pw = nn.Conv1d(4, 4, 1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv_pw(self.norm(self.conv_dw(features))).relu()


class Wrapping(TinyModule):
    """Trains a network that was made elsewhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        del self.first, self.second
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.network(features)
        return outputs


class Transformer(Wrapping):
    """Wraps a transformer of Hugging Face, which reads numbers as tokens and returns an object."""

    def __init__(self) -> None:
        super().__init__(tiny_transformer())

    def forward(self, features: Tensor) -> Tensor:
        tokens = (features * 5).long().abs() % 20
        logits: Tensor = self.network(input_ids=tokens).logits
        return logits


class Adapted(Transformer):
    """The same with LoRA on its projections; the classifier is trained as a whole."""

    def __init__(self) -> None:
        super().__init__()
        peft = pytest.importorskip("peft", reason="needs the extra huggingface")
        lora = peft.LoraConfig(
            r=2, target_modules=["query", "value"], modules_to_save=["classifier"]
        )
        self.network = peft.get_peft_model(self.network, lora)


class Recurrent(Wrapping):
    """Reads its features one after the other, there and back."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM(1, 4, num_layers=2, bidirectional=True, batch_first=True))
        self.head = nn.Linear(8, 4)

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.network(features[:, :, None])[0][:, -1])
        return outputs


class Frozen(Wrapping):
    """Only the last stage and the head of its network are trained."""

    def __init__(self) -> None:
        super().__init__(Backbone())
        self.network.stem.requires_grad_(False)
        self.network.stages[0].requires_grad_(False)


class Evaluated(Frozen, EvaluatedModule):
    """The same with the steps of the evaluating loops."""


def tiny_transformer() -> nn.Module:
    """Return an encoder of one layer with 4 labels, from a config object, with random weights."""
    transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


class LateModule(TinyModule):
    """Its second layer is made in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__()
        del self.second

    def configure_model(self) -> None:
        if not hasattr(self, "second"):
            self.second = nn.Linear(16, 4)


class SetUpModule(TinyModule):
    """Its second layer is made in ``setup``."""

    def __init__(self) -> None:
        super().__init__()
        del self.second

    def setup(self, stage: str) -> None:
        if not hasattr(self, "second"):
            self.second = nn.Linear(16, 4)
