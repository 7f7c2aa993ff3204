"""Quantized embeddings against sentence-transformers' own, to the bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sentence_transformers.util import quantize_embeddings as stock

from distilface_st import EdgeEncoder, InputError, load_model
from distilface_st.inference.precision import PRECISIONS, SCALED, quantize_embeddings, quantized_width, ranges_of

NUMBERS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0])
WIDTHS = st.integers(1, 20)


def rows(least: int, width: int, dtype: type = np.float32):
    shape = st.tuples(st.integers(least, 12), st.just(width))
    return arrays(dtype, shape, elements=NUMBERS.map(dtype), fill=st.nothing())


def same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
@settings(deadline=None)
def test_the_numbers_are_sentence_transformers_own(precision, dtype, data):
    embeddings = data.draw(WIDTHS.flatmap(lambda width: rows(2, width, dtype)))
    before = embeddings.copy()
    same(quantize_embeddings(embeddings, precision), stock(embeddings, precision))
    same(embeddings, before)
    assert quantize_embeddings(embeddings, precision).shape[1] == quantized_width(embeddings.shape[1], precision)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("precision", PRECISIONS)
@given(st.data())
@settings(deadline=None)
def test_given_ranges_decide_and_not_the_other_rows(precision, data):
    width = data.draw(WIDTHS)
    embeddings, others = data.draw(rows(1, width)), data.draw(rows(1, width))
    ranges = ranges_of(others)
    found = quantize_embeddings(embeddings, precision, ranges)
    same(found, stock(embeddings, precision, ranges=ranges))
    for row, own in zip(embeddings, found, strict=True):
        same(quantize_embeddings(row, precision, ranges), own)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_embeddings_have_the_width_of_some(precision):
    same(quantize_embeddings(np.zeros((0, 12), np.float32), precision), stock(np.zeros((0, 12), np.float32), precision))


@pytest.mark.parametrize("precision", SCALED)
@pytest.mark.parametrize("one", [np.ones(8), np.ones((1, 8))])
def test_a_single_embedding_has_no_ranges(precision, one):
    with pytest.raises(ValueError, match="ranges"):
        stock(one, precision)
    with pytest.raises(InputError, match=f"{precision} needs the range of each dimension"):
        quantize_embeddings(one, precision)


def test_what_cannot_be_quantized_is_refused():
    embeddings = np.ones((2, 8), np.float32)
    with pytest.raises(InputError, match="no precision 'int4': choose from float32, int8, uint8, binary, ubinary"):
        quantize_embeddings(embeddings, "int4")
    for ranges in (np.zeros((2, 7)), np.zeros(8), np.zeros((8, 2))):
        with pytest.raises(InputError, match=r"Ranges have shape \(2, 8\)"):
            quantize_embeddings(embeddings, "int8", ranges)
    with pytest.raises(InputError, match="quantized already, to int8"):
        quantize_embeddings(embeddings.astype(np.int8), "ubinary")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("options", [{}, {"normalize_embeddings": True, "truncate_dim": 12}])
def test_an_encoder_gives_what_sentence_transformers_gives(exported, precision, options):
    pytest.importorskip("onnxruntime")
    encoder, model = EdgeEncoder(exported, "onnxruntime"), load_model(exported, runtime="onnxruntime")
    texts = ["the cat", "a dog barks", "", "the king of the state", "war"]
    same(encoder.encode(texts, precision=precision, **options), model.encode(texts, precision=precision, **options))
    if precision not in SCALED:
        same(encoder.encode("war", precision=precision), model.encode("war", precision=precision))
    assert encoder.encode([], precision=precision).shape == (0, quantized_width(32, precision))


def test_an_encoder_refuses_one_text_in_int8_and_a_precision_that_does_not_exist(exported):
    pytest.importorskip("onnxruntime")
    encoder = EdgeEncoder(exported, "onnxruntime")
    for text in ("the cat", ["the cat"]):
        with pytest.raises(InputError, match="int8 needs the range of each dimension"):
            encoder.encode(text, precision="int8")
    with pytest.raises(InputError, match="no precision 'fp16': choose from float32, int8, uint8, binary, ubinary"):
        encoder.encode("the cat", precision="fp16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_encoder_quantizes_where_torch_cannot_be_imported(exported, precision):
    pytest.importorskip("onnxruntime")
    program = f"""
import sys
for name in ("torch", "transformers", "sentence_transformers", "scipy", "datasets"):
    sys.modules[name] = None
from distilface_st import EdgeEncoder
print(EdgeEncoder(sys.argv[1], "onnxruntime").encode(["a cat", "a dog"], precision="{precision}").dtype)
"""
    done = subprocess.run([sys.executable, "-c", program, exported], capture_output=True, text=True, check=False)
    expected = {"float32": "float32", "int8": "int8", "binary": "int8"}.get(precision, "uint8")
    assert done.stdout == f"{expected}\n", done.stderr
