"""The models of the experiment: language models with their heads, from the list, from ``training``, and untrained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastaniso.paper.models import Entry, default_list, read_list
from fastaniso.paper.models.families import SCALES
from fastaniso.paper.models.figures import FIGURES
from fastaniso.paper.models.loading import loaded
from fastaniso.paper.models.materials import Material, material
from fastaniso.paper.models.tokenizing import subwords
from fastaniso.paper.options import Options, Size

PYTHIA = tuple(f"EleutherAI/pythia-{size}" for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b"))
"""Tried at full size where no list is given."""

CAUSAL, MASKED, TRANSLATING = "causal", "masked", "encoder–decoder"
_MAKERS = {
    CAUSAL: ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    MASKED: ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    TRANSLATING: ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "speech": ("AutoModelForSpeechSeq2Seq", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
}


@dataclass(frozen=True)
class Subject:
    """A model and what it reads, which is text, images or sounds (``data``).

    ``kind`` is what its head does, "" where it has none and ``network`` is None; ``given`` is the model as
    ``fastaniso.scan`` takes it.
    """

    name: str
    trained: bool
    data: str
    reads: Material
    given: Mapping[str, Any]
    kind: str = ""
    network: Any = None
    tokenizer: Any = None
    head_is_trained: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is a language model of one stack, which reads texts."""
        return self.kind in (CAUSAL, MASKED)


@dataclass(frozen=True)
class Candidate:
    """A model by name, and how it is opened."""

    name: str
    open: Callable[[], Subject]


def candidates(options: Options) -> Iterator[Candidate]:
    """Trained models of the list, those that ``training`` left in this run, and untrained ones."""
    for entry in _entries(options):
        yield Candidate(entry.name, lambda entry=entry: _listed(entry, options))  # type: ignore[misc]  # bound now
    for name, kind in (("GPT-2, untrained", "gpt2"), ("GPT-NeoX, untrained", "gpt_neox")):
        yield Candidate(name, lambda name=name, kind=kind: _untrained(name, kind, options))  # type: ignore[misc]


def _entries(options: Options) -> list[Entry]:
    entries: tuple[Entry, ...] = ()
    if options.models:
        entries = read_list(options.models)
    elif options.size is not Size.smoke:
        entries = default_list(hub=options.size is Size.full)
    if options.size is Size.full and not options.models:
        entries += tuple(Entry(model, model.rpartition("/")[2], "subword") for model in PYTHIA)
    trained_here = sorted((options.out / "training" / "models").glob("*/config.json"))
    here = [Entry(str(file.parent.resolve()), f"{file.parent.name} LM of this run", "subword") for file in trained_here]
    return [*(entry for entry in entries if entry.is_trained), *here]


def _listed(entry: Entry, options: Options) -> Subject:
    import transformers

    data = FIGURES[entry.figure].data
    reads = material(data, entry, options)
    source, given = entry.source(), loaded(entry, reads, options.size, options.device)
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    kind = kind_of(config)
    if not kind:
        return Subject(entry.name, True, data, reads, given)
    maker: Any = getattr(transformers, _MAKERS[kind][0])
    network, info = maker.from_pretrained(source, output_loading_info=True, trust_remote_code=False)
    tokenizer = given.get("tokenizer", source) if data == "text" else None
    if isinstance(tokenizer, str):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    network = network.float().eval().to(device_of(options))
    # Weights that the folder lacks were drawn at random: a head of such says nothing.
    return Subject(entry.name, True, data, reads, given, kind, network, tokenizer, not info["missing_keys"])


def kind_of(config: Any) -> str:
    """What a head over a model of this configuration does: as it was trained, else what there is for it."""
    from transformers.models.auto import modeling_auto

    named = " ".join(config.architectures or ())
    known = {kind: config.model_type in getattr(modeling_auto, names, {}) for kind, (_, names) in _MAKERS.items()}
    if known[CAUSAL] and ("CausalLM" in named or "LMHeadModel" in named):
        return CAUSAL
    # Every encoder can also be read as a decoder, and an encoder–decoder in parts: least likely last.
    return next((kind for kind in ("speech", TRANSLATING, MASKED, CAUSAL) if known[kind]), "")


def _untrained(name: str, kind: str, options: Options) -> Subject:
    """Input and output embeddings are two tables, as in Pythia."""
    import torch
    import transformers

    makers: Any = transformers
    scale = SCALES[options.size]
    reads = material("text", Entry(name, name, "subword"), options)
    tokenizer = subwords(reads.sample(), scale.vocabulary, begin=False, end=False)
    shape = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
    if kind == "gpt2":
        config = makers.GPT2Config(n_embd=scale.dim, n_layer=scale.layers, n_head=scale.heads, **shape)
    else:
        config = makers.GPTNeoXConfig(
            hidden_size=scale.dim,
            num_hidden_layers=scale.layers,
            num_attention_heads=scale.heads,
            intermediate_size=4 * scale.dim,
            **shape,
        )
    torch.manual_seed(0)
    network = makers.AutoModelForCausalLM.from_config(config).float().eval().to(device_of(options))
    given = {"model": network, "tokenizer": tokenizer}
    return Subject(name, False, "text", reads, given, CAUSAL, network, tokenizer, True)


def device_of(options: Options) -> str:
    """Where models run."""
    import torch

    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")
