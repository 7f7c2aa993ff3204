"""Training under `accelerated`: the same function, the same files, proper dropout, and a clean way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from distilface_st.losses import SimCSELoss
from distilface_st.models.build import build_model
from distilface_st.training.acceleration import ATTENTION, FastDropout, accelerated, fast_dropout

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

TEXTS = ["the old man and the river", "a red house", "she read two books in the city last night", "music"] * 2


def small_model(encoder: Path, p: float | None = None) -> SentenceTransformer:
    model = build_model(str(encoder), layers="last_two", device="cpu").train()
    for module in model.modules():
        if p is not None and isinstance(module, nn.Dropout):
            module.p = p
    return model


def gradients(model: SentenceTransformer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Embeddings of the texts, and the gradient of a function of them that treats no two dimensions alike."""
    model.zero_grad()
    embeddings = model(model.preprocess(TEXTS))["sentence_embedding"]
    (embeddings * torch.linspace(-1, 2, embeddings.numel()).view_as(embeddings)).sin().sum().backward()
    named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return embeddings.detach(), named


def assert_same(found: tuple, expected: tuple) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)


@pytest.fixture(params=["tiny_encoder", "tiny_distilbert"])
def encoder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.001])
def test_dropout_keeps_the_right_share_and_the_mean(p: float) -> None:
    torch.manual_seed(0)
    out = fast_dropout(torch.ones(1001, 999), p)
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=5 * (p / 1e6) ** 0.5)
    assert float(out.mean()) == pytest.approx(1, abs=5 * (p / (1 - p) / 1e6) ** 0.5)
    assert out.unique().numel() == 2


def test_masks_of_neighbours_and_of_successive_calls_are_independent() -> None:
    torch.manual_seed(0)
    first, second = (fast_dropout(torch.ones(1000, 1000), 0.5).flatten() - 1 for _ in range(2))
    assert abs(float((first * second).mean())) < 5e-3
    for lag in (1, 2, 3, 4, 8, 1000):  # four neighbours share a random word
        assert abs(float((first[lag:] * first[:-lag]).mean())) < 5e-3


def test_dropout_repeats_with_the_seed_of_torch() -> None:
    torch.manual_seed(7)
    first = fast_dropout(torch.ones(50), 0.3)
    torch.manual_seed(7)
    assert torch.equal(fast_dropout(torch.ones(50), 0.3), first)


def test_dropout_sends_gradients_through_its_mask() -> None:
    x = torch.ones(64, requires_grad=True)
    out = fast_dropout(x, 0.5)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_dropout_modules_leave_eval_mode_and_the_extremes_to_torch() -> None:
    x = torch.ones(10)
    assert torch.equal(FastDropout(0.5).eval()(x), x)
    assert torch.equal(FastDropout(0.0)(x), x)
    assert torch.equal(FastDropout(1.0)(x), torch.zeros(10))


def test_without_dropout_embeddings_and_gradients_are_those_of_the_plain_model(encoder: Path) -> None:
    model = small_model(encoder, p=0.0)
    plain = gradients(model)
    with accelerated(model):
        assert_same(gradients(model), plain)


def test_attention_with_dropout_and_padding_is_that_of_transformers(encoder: Path) -> None:
    model = small_model(encoder, p=0.0)
    plain = gradients(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 1e-9  # takes the path with dropout, but drops nothing
    with accelerated(model) as found:
        assert found.attention
        assert_same(gradients(model), plain)


def test_gradient_caching_replays_the_masks(tiny_encoder: Path) -> None:
    model = small_model(tiny_encoder, p=0.2)
    features = model.preprocess(TEXTS)
    found = []
    with accelerated(model):
        for mini_batch_size in (None, len(TEXTS)):
            model.zero_grad()
            torch.manual_seed(1)
            loss = SimCSELoss(model, mini_batch_size=mini_batch_size)
            if mini_batch_size is None:
                views = [model(dict(features))["sentence_embedding"] for _ in range(2)]
                value = loss.compute_loss_from_embeddings(views)
            else:
                value = loss([dict(features)])
            value.backward()
            found.append(
                (value.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            )
    assert_same(found[1], found[0])


def test_two_views_of_a_sentence_differ_and_eval_mode_is_untouched(encoder: Path) -> None:
    model = small_model(encoder)
    expected = model.eval().encode(TEXTS)
    with accelerated(model.train()):
        one, two = (model(model.preprocess(TEXTS[:1]))["sentence_embedding"] for _ in range(2))
        assert not torch.allclose(one, two)
        assert model.eval().encode(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_modules_and_attention_are_put_back(encoder: Path) -> None:
    model = small_model(encoder)
    modules, attention = list(model.modules()), model[0].auto_model.config._attn_implementation
    with accelerated(model) as found:
        assert found.dropouts == sum(isinstance(module, FastDropout) for module in model.modules()) > 0
        assert model[0].auto_model.config._attn_implementation == ATTENTION
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    assert model[0].auto_model.config._attn_implementation == attention
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_is_saved_inside_is_what_is_saved_outside(encoder: Path, tmp_path: Path) -> None:
    model = small_model(encoder)
    model.save(str(tmp_path / "outside"), create_model_card=False)
    with accelerated(model):
        model.save(str(tmp_path / "inside"), create_model_card=False)
    files = {file.relative_to(tmp_path / "outside") for file in (tmp_path / "outside").rglob("*") if file.is_file()}
    assert files == {
        file.relative_to(tmp_path / "inside") for file in (tmp_path / "inside").rglob("*") if file.is_file()
    }
    for file in files:
        assert (tmp_path / "inside" / file).read_bytes() == (tmp_path / "outside" / file).read_bytes(), file


def test_a_model_without_a_transformer_is_left_alone() -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=4)], device="cpu")
    with accelerated(model) as found:
        assert (found.dropouts, found.attention) == (0, False)


def test_freed_memory_is_not_faulted_in_again(tiny_encoder: Path) -> None:
    resource = pytest.importorskip("resource")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            blocks = [torch.ones(4 << 20) for _ in range(4)]  # 16 MiB each
            del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with accelerated(small_model(tiny_encoder)) as found:
        if not found.memory:
            pytest.skip("not glibc")
        faults()
        assert faults() < 4096  # once would be 16384, every time 327680
