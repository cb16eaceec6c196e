"""Fine-tune a Hugging Face transformer while pruning it, on text that comes with Python.

The task: is a line of the standard library's source code, or prose (a comment or a docstring)?
Nothing is downloaded: the lines are those of the Python that runs this, the tokenizer is made of
them, and the model is made from a config. With weights of your own, ``from_pretrained`` takes the
place of the dense training.

    python examples/transformer_finetune.py
"""

import ast
import logging
import random
import warnings
from collections import Counter
from pathlib import Path
from sysconfig import get_path

import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from coreai_opt.pruning import MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import ScheduledPruning

KINDS = ["code", "prose"]
TRAIN_LINES, TEST_LINES = 3000, 1000  # of each kind
VOCABULARY = 2000
TOKENS = 24  # of a line; what is longer is cut off
TARGET = 0.9
FOLDER = "outputs/transformer"

Line = tuple[str, int]


def lines_of(file: Path) -> set[Line]:
    """Return the lines of a source file, each with the number of its kind."""
    text = file.read_text(encoding="utf-8")
    literals: set[int] = set()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            literals.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found: set[Line] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        is_comment = line.lstrip().startswith("#") and number not in literals
        # The signs that would give it away.
        bare = line.strip("#\"' \t")
        if len(bare) >= 12:
            found.add((bare, int(is_comment or number in docstrings)))
    return found


def read_lines() -> tuple[list[Line], list[Line]]:
    """Return lines for training and for testing; every fourth file is for testing alone."""
    train: set[Line] = set()
    test: set[Line] = set()
    for number, file in enumerate(sorted(Path(get_path("stdlib")).glob("*.py"))):
        (test if number % 4 == 3 else train).update(lines_of(file))
    return drawn(train, TRAIN_LINES), drawn(test - train, TEST_LINES)


def drawn(lines: set[Line], count: int) -> list[Line]:
    """Return as many lines of each kind."""
    draw = random.Random(0)
    kinds = range(len(KINDS))
    return [
        line
        for kind in kinds
        for line in draw.sample(sorted(one for one in lines if one[1] == kind), count)
    ]


def make_tokenizer(lines: list[Line]) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows the most frequent words, and the characters of all others.

    The trainers of ``tokenizers`` would find better pieces, but not the same ones in every run.
    """
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    split = BertPreTokenizer()
    counts = Counter(word for text, _ in lines for word, _ in split.pre_tokenize_str(text))
    characters = sorted({character for word in counts for character in word})
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = [*special.values(), *characters, *(f"##{one}" for one in characters), *frequent]
    vocabulary = list(dict.fromkeys(pieces))[:VOCABULARY]
    numbered = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(numbered, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def encode(tokenizer: PreTrainedTokenizerFast, lines: list[Line]) -> TensorDataset:
    texts = [f"[CLS] {text}" for text, _ in lines]
    encoded = tokenizer(
        texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    labels = torch.tensor([kind for _, kind in lines])
    return TensorDataset(encoded["input_ids"], encoded["attention_mask"], labels)


class LineClassifier(pl.LightningModule):
    """Any Hugging Face model for sequence classification."""

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        super().__init__()
        self.model = model
        self.lr = lr

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        input_ids, attention_mask, labels = batch
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        loss: Tensor = output.loss
        return loss

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        input_ids, attention_mask, labels = batch
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        right = (logits.argmax(dim=1) == labels).float().mean()
        self.log("test/accuracy", right, batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def make_trainer(epochs: int = 1, callbacks: list[pl.Callback] | None = None) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    loader = DataLoader(data, batch_size=500)
    (metrics,) = make_trainer().test(LineClassifier(model), loader, verbose=False)
    return metrics["test/accuracy"]


def make_model(vocab_size: int) -> PreTrainedModel:
    config = DistilBertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=TOKENS,
        dim=128,
        hidden_dim=256,
        n_layers=2,
        n_heads=4,
        num_labels=len(KINDS),
        id2label=dict(enumerate(KINDS)),
        label2id={kind: number for number, kind in enumerate(KINDS)},
    )
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model


def prune(model: nn.Module, data: DataLoader[tuple[Tensor, ...]]) -> None:
    """Fine-tune for two epochs while the sparsity of the encoder goes up to the target."""
    # In hundredths of the training, whatever its length: the last 40 % are for recovering.
    ramp = PolynomialDecaySchedule(total_iters=60)
    # Linear layers are pruned, embeddings and norms are not. The head is small: left dense.
    config = MagnitudePrunerConfig.uniform(TARGET).without(r"model\.(pre_)?classifier")
    pruning = ScheduledPruning(ramp, config=config, interval="percent")
    trainer = make_trainer(epochs=2, callbacks=[pruning])
    # The model stays stock Hugging Face all the while, with zeros in it in the end.
    trainer.fit(LineClassifier(model, lr=5e-4), data)


def print_layers(model: nn.Module) -> None:
    print(f"{'layer':58}{'shape':>12}{'sparsity':>10}")
    for layer in count_sparsity(model).layers:
        shape = "x".join(map(str, layer.shape))
        print(f"{layer.name:58}{shape:>12}{layer.sparsity:>10.2%}")
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            shape = "x".join(map(str, module.weight.shape))
            print(f"{name + '.weight':58}{shape:>12}{'dense':>10}")
    parameters = list(model.parameters())
    nonzero = sum(int(torch.count_nonzero(parameter)) for parameter in parameters)
    total = sum(parameter.numel() for parameter in parameters)
    print(f"{nonzero:,} of {total:,} parameters are not zero")


def main() -> None:
    # Everything is in memory, and what Lightning says of the machine is not the point here.
    warnings.filterwarnings("ignore", ".*does not have many workers")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    pl.seed_everything(0, verbose=False)

    train_lines, test_lines = read_lines()
    tokenizer = make_tokenizer(train_lines)
    train_data, test_data = encode(tokenizer, train_lines), encode(tokenizer, test_lines)
    loader = DataLoader(train_data, batch_size=64, shuffle=True)
    print(f"{len(train_data):,} lines to train on, {len(test_data):,} lines of other files to test")

    model = make_model(len(tokenizer))
    make_trainer(epochs=1).fit(LineClassifier(model), loader)
    print(f"dense: test accuracy {accuracy(model, test_data):.2%}")

    prune(model, loader)
    print(f"pruned: test accuracy {accuracy(model, test_data):.2%}")
    print_layers(model)

    model.save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    again = AutoModelForSequenceClassification.from_pretrained(FOLDER)
    print(f"from_pretrained: test accuracy {accuracy(again, test_data):.2%}")


if __name__ == "__main__":
    main()
