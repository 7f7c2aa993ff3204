"""A whole exported graph as the one module of a SentenceTransformer: tokens in, sentence embedding out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from ..inference.engines import embed_batch, open_engine
from ..inference.manifest import MANIFEST, read_manifest
from ..inference.tokenization import TOKENIZER, SentenceTokenizer, check_sentences

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from tokenizers import Tokenizer

    from ..inference.engines import Engine


class OnnxEncoder(InputModule):
    """Runs an exported folder in onnxruntime or OpenVINO, whichever its graph is for.

    The graph holds encoder, pooling and whatever came after it, so this is the only module of its
    ``SentenceTransformer``; ``encode``, ``similarity``, evaluators and multi-process pools work as on any other. It
    cannot be trained, and gives no token embeddings. The engine opens on first use, and anew in every process.

    Args:
        folder: An exported folder.
        runtime: This and the others: see :func:`distilface_st.inference.engines.open_engine`.

    Raises:
        InputError: A folder that is no exported model, or a damaged one.

    Example:
        ::

            model = SentenceTransformer(modules=[OnnxEncoder("my-export", threads=2)], device="cpu")
            embeddings = model.encode(["It is sunny.", "He drove to work."], normalize_embeddings=True)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        runtime: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder = Path(folder).absolute()
        self.manifest = read_manifest(folder)
        self.runtime = runtime
        self._settings: dict[str, Any] = {
            "threads": threads,
            "providers": providers,
            "options": options,
            "device": device,
        }
        self._tokenizer = SentenceTokenizer(self.folder, self.manifest)
        self._prompt_lengths: dict[str, int] = {}
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine that runs the graph, opened when first asked for."""
        if self._engine is None:
            self._engine = open_engine(self.folder, self.runtime, manifest=self.manifest, **self._settings)
            self.runtime = self._engine.runtime
        return self._engine

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        """The tokenizer, of the tokenizers library."""
        return self._tokenizer.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens; longer text is cut."""
        return self._tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._tokenizer.max_seq_length = value

    def get_embedding_dimension(self) -> int:
        """Width of the embeddings."""
        return self.manifest.dimension

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor | Any]:
        """Token ids and mask of sentences, each (sentences, longest), int64, and the length of a prompt before each."""
        check_sentences(inputs)
        texts = [prompt + text for text in inputs] if prompt else list(inputs)
        # A lone text is spared the threads that a list is worth.
        one = len(texts) == 1
        rows, mask = self._tokenizer.pad([self._tokenizer.ids_of_one(texts[0])] if one else self._tokenizer.ids(texts))
        features: dict[str, Any] = {"input_ids": torch.from_numpy(rows), "attention_mask": torch.from_numpy(mask)}
        if prompt:
            if prompt not in self._prompt_lengths:
                self._prompt_lengths[prompt] = self._tokenizer.prompt_length(prompt)
            features["prompt_length"] = self._prompt_lengths[prompt]
        return features

    def forward(self, features: dict[str, Tensor | Any], **kwargs: Any) -> dict[str, Tensor | Any]:
        """Add ``sentence_embedding``, shape (sentences, d), float32, on the input's device, to the features."""
        ids, mask = (features[key].cpu().numpy() for key in ("input_ids", "attention_mask"))
        embeddings = embed_batch(self.engine, ids, mask, self.manifest, int(features.get("prompt_length") or 0))
        if self.engine.runtime == "openvino":
            embeddings = embeddings.copy()  # it is OpenVINO's own memory, which the next call overwrites
        features["sentence_embedding"] = torch.from_numpy(embeddings).to(features["input_ids"].device)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Copy manifest, tokenizer, graphs and card to a folder."""
        graphs = (name for graph in self.manifest.graphs.values() for name in graph.files)
        for name in (MANIFEST, TOKENIZER, *graphs, "README.md"):
            target = Path(output_path, name)
            if (self.folder / name).exists() and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(self.folder / name, target)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> OnnxEncoder:
        """Open a saved folder, or download it from the Hub; of the other arguments, those of the class are used."""
        keys = ("runtime", "threads", "providers", "options", "engine_device")
        options = {key.removeprefix("engine_"): kwargs[key] for key in keys if key in kwargs}
        folder = model_name_or_path
        if not Path(folder).is_dir():
            from huggingface_hub import snapshot_download

            folder = snapshot_download(
                folder, revision=revision, cache_dir=cache_folder, token=token, local_files_only=local_files_only
            )
        return cls(Path(folder, subfolder), **options)

    def __getstate__(self) -> dict[str, Any]:
        """An engine cannot travel to another process; it is opened there anew."""
        return {**self.__dict__, "_engine": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxEncoder:
        copy = type(self)(self.folder, self.runtime, **self._settings)
        copy.max_seq_length = self.max_seq_length
        return copy
