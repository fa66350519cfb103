"""What GRPO of a large model with LoRA needs and gives on large GPUs: arithmetic, no measurement.

Every process of distributed data parallelism holds the whole model, so memory is one GPU's, however many there are.
Memory follows from what autograd keeps of a layer (a test compares it with what it keeps of a small one), time from the
operations and bytes that a cycle cannot do without, and the shares of a GPU's peak in `Share`.
"""

from dataclasses import dataclass
from math import ceil

BF16, FP32 = 2, 4  # bytes


@dataclass(frozen=True)
class Shape:
    """A Llama or Qwen2, whose embedding and head are two tables.

    Attributes:
        name: Hub id.
        hidden: Width.
        layers: Depth.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head: Width of a head.
        intermediate: Width between the layers of an MLP.
        vocabulary: Rows of the embedding.
        bias: Whether queries, keys and values have a bias.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    vocabulary: int
    bias: bool

    @property
    def kv(self) -> int:
        """Width of keys."""
        return self.kv_heads * self.head

    def linears(self) -> list[tuple[int, int]]:
        """Return the widths (in, out) of a layer's linear maps: q, k, v, o, gate, up, down."""
        h, q, i = self.hidden, self.heads * self.head, self.intermediate
        return [(h, q), (h, self.kv), (h, self.kv), (q, h), (h, i), (h, i), (i, h)]

    def parameters(self) -> int:
        """Return how many numbers the model has."""
        biases = (self.heads * self.head + 2 * self.kv) * self.bias
        layer = sum(a * b for a, b in self.linears()) + biases + 2 * self.hidden
        return self.layers * layer + self.hidden + 2 * self.vocabulary * self.hidden

    def adapter(self, rank: int) -> int:
        """Return the numbers of a LoRA on every linear map of every layer."""
        return self.layers * sum((a + b) * rank for a, b in self.linears())

    def read(self) -> int:
        """Return the numbers that a forward pass multiplies with: of the embedding it only looks rows up."""
        return self.layers * sum(a * b for a, b in self.linears())

    def kept_of_a_layer(self, rank: int) -> int:
        """Return the bytes a token that autograd keeps of one layer under LoRA and bf16 autocast.

        Two norms in fp32; for each of the seven LoRAs its input and what its first matrix makes of it; queries, keys,
        values, output and normaliser of attention; the gate before and after its nonlinearity, and what it multiplies.
        The frozen maps keep nothing.
        """
        inputs = sum(a + rank for a, _ in self.linears())
        attention = 2 * self.heads * self.head + 2 * self.kv
        exact = 2 * (self.hidden + 1) + self.heads
        return FP32 * exact + BF16 * (inputs + attention + 3 * self.intermediate)


@dataclass(frozen=True)
class GPU:
    """A card's data sheet.

    Attributes:
        name: Its own.
        memory: Bytes.
        operations: Dense bf16 operations a second.
        bandwidth: Bytes a second from its memory.
        link: Bytes a second to the other cards of its node, one way.
    """

    name: str
    memory: float
    operations: float
    bandwidth: float
    link: float


@dataclass(frozen=True)
class Share:
    """What of the peak is reached; assumed, from the sources that docs/scale.md names.

    Attributes:
        operations: Of matrix products in training and prefill, those that checkpointing repeats among them (HFU).
        bandwidth: Of reading weights and cache in decoding.
        launches: Seconds a layer and decoding step in which the host starts kernels one by one; 0 where graphs do.
        network: Bytes a second between nodes, one way.
    """

    operations: float = 0.35
    bandwidth: float = 0.6
    launches: float = 0.6e-3
    network: float = 25e9


@dataclass(frozen=True)
class Work:
    """A cycle on one GPU.

    Attributes:
        prompts: Prompts a cycle.
        samples: Flows a prompt.
        prompt: Tokens of a prompt.
        flow: Tokens of a flow on average.
        budget: Tokens of the longest flow.
        free: Share of a flow's tokens that the grammar does not force.
        codec: Flow tokens in the vocabulary.
        rank: Of LoRA.
        rows: Flows sampled at once.
        micro_tokens: Tokens in one forward pass of training.
        chunk: Free tokens whose logits are there at once.
        epochs: Passes over a cycle's samples.
        minibatches: Optimizer steps in a pass.
        members: Surrogates in the reward ensemble.
        encoder: Numbers of one of them.
    """

    prompts: int = 32
    samples: int = 8
    prompt: int = 64
    flow: int = 100
    budget: int = 160
    free: float = 0.72
    codec: int = 2500
    rank: int = 16
    rows: int = 256
    micro_tokens: int = 8192
    chunk: int = 1024
    epochs: int = 1
    minibatches: int = 4
    members: int = 5
    encoder: int = 149_014_272


def memory(shape: Shape, work: Work) -> dict[str, float]:
    """Return the bytes that one GPU holds, by what for; ``total`` is the peak: rollout and update take turns."""
    new = 2 * (work.codec + 3) * shape.hidden  # rows of embedding and head
    trained = shape.adapter(work.rank)
    always = {
        "base model, bf16": BF16 * (shape.parameters() + new),
        "two adapters and their token rows, fp32": 2 * FP32 * (trained + new),
        "gradients and their DDP buckets, fp32": 2 * FP32 * trained,
        "AdamW's two moments, fp32": 2 * FP32 * trained,
        "reward ensemble, fp32": FP32 * work.members * work.encoder,
        "CUDA, cuBLAS, NCCL, fragmentation (assumed)": 3e9,
    }
    rows = min(work.rows, work.prompts * work.samples)
    slots = rows * work.budget + rows / work.samples * work.prompt  # a prompt's once for all its samples
    rollout = {"key-value cache of rollouts, bf16": BF16 * 2 * shape.layers * shape.kv * slots}
    update = {
        "layer inputs kept by gradient checkpointing, bf16": BF16
        * shape.hidden
        * shape.layers
        * work.micro_tokens,
        "the layer that is computed again": shape.kept_of_a_layer(work.rank) * work.micro_tokens,
        "the adapter as autocast multiplies with it, bf16": BF16 * trained,
        "logits of one chunk and their gradients, fp32": 3 * FP32 * work.chunk * work.codec,
    }
    total = sum(always.values()) + max(sum(rollout.values()), sum(update.values()))
    return {**always, **rollout, **update, "total": total}


@dataclass(frozen=True)
class Cycle:
    """Seconds of a cycle by phase, and how many tokens each GPU passes in them."""

    rollout: float
    reward: float
    reference: float
    update: float
    reduce: float
    sampled: int
    trained: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.rollout + self.reward + self.reference + self.update + self.reduce


def cycle(shape: Shape, gpu: GPU, work: Work, share: Share, gpus: int = 1, nodes: int = 1) -> Cycle:
    """Return how long a cycle takes where each of ``gpus`` GPUs on ``nodes`` nodes does the same work.

    A decoding step reads all weights once and every row's cache once, or waits for its launches, whichever takes
    longer; there are as many as the longest flow has free tokens. A trained token costs two operations a number
    forward, two more to compute its layer again, two back; frozen numbers need no gradients of their own. A prompt
    is computed once for all its samples, but by the ensemble, which reads pairs. The adapter's gradients go around a
    ring once an update, nothing else does. That ranks wait for the slowest is left out.
    """
    flows = work.prompts * work.samples
    numbers = shape.read() + shape.adapter(work.rank) + work.codec * shape.hidden
    operations = gpu.operations * share.operations
    prefill = 2 * numbers * work.prompts * work.prompt / operations
    rows = min(work.rows, flows)
    cache = BF16 * 2 * shape.layers * shape.kv * rows * (work.prompt + work.budget / 2)
    read = (BF16 * numbers + cache) / (gpu.bandwidth * share.bandwidth)
    multiply = 2 * numbers * rows / work.free / operations  # forced tokens ride along
    step = max(read, multiply, share.launches * shape.layers)
    tokens = work.prompts * work.prompt + flows * work.flow
    forward = 2 * numbers * tokens / operations
    ring = 2 * (gpus - 1) / gpus * FP32 * shape.adapter(work.rank)
    return Cycle(
        rollout=prefill + step * ceil(flows / work.rows) * ceil(work.budget * work.free),
        reward=2 * work.members * work.encoder * flows * (work.prompt + work.flow) / operations,
        reference=forward,
        update=3 * forward * work.epochs,
        reduce=work.epochs * work.minibatches * ring / (gpu.link if nodes == 1 else share.network),
        sampled=flows * work.flow,
        trained=tokens * work.epochs,
    )
