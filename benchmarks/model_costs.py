"""What the published models take: parameters, bytes, floating-point operations, memory. Computed, not measured.

    python benchmarks/model_costs.py [--out runs/benchmarks/model_costs.json]

Networks of the published sizes are laid out without values and run on shapes alone, so that no weights, no memory
and no GPU are needed. Counted are multiplications and additions of matrix products, convolutions and attention, and
the bytes of the tensors that live at the same time, as if attention kept no matrix of weights; a library's own
workspace comes on top. Seconds are operations over a rate that you name.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from flowsmith.evaluation.strict_json import dumps
from flowsmith.execution.networks import NAMES, Family, run_network
from flowsmith.files import atomic_write

HALF = torch.bfloat16
RATES = {"RTX 4090": 165e12, "A100 SXM": 312e12, "H100 SXM": 989e12}  # of dense bfloat16, as published
SHARE = 0.4  # of a rate that is reached: an assumption
STEPS = 20
OUT = Path("runs/benchmarks/model_costs.json")

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


@dataclass
class Cost:
    """What one model takes for one picture.

    Attributes:
        name: Of the family, and of the variant where it matters.
        pixels: A side of the picture.
        network_parameters: Of the denoising network.
        text_parameters: Of the text networks together.
        weight_gib: Denoising network and VAE in 16 bits, CLIPs in 32 and T5 in 16.
        network_gib: The denoising network alone in 16 bits.
        call_tflop: One call of the network on one picture, in 10^12 operations.
        calls: Calls for a picture of 20 steps: two a step where there is classifier-free guidance.
        decode_tflop: Of the VAE's decoder.
        call_gib: Most bytes of tensors that live at once in one call of a batch of two, weights not counted.
        decode_gib: Likewise in decoding one picture.
    """

    name: str
    pixels: int
    network_parameters: int
    text_parameters: int
    weight_gib: float
    network_gib: float
    call_tflop: float
    calls: int
    decode_tflop: float
    call_gib: float
    decode_gib: float

    def seconds(self, rate: float) -> float:
        """Return the seconds that a picture takes on a device of so many operations a second."""
        return (self.calls * self.call_tflop + self.decode_tflop) * 1e12 / (SHARE * rate)


class LiveBytes(TorchDispatchMode):
    """Notes the most bytes of tensors that live at once, those of a network not counted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._weights = {tensor.untyped_storage()._cdata for tensor in network.parameters()}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._weights:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._live.values()))
        return result


@contextmanager
def counted_attention() -> Iterator[list[float]]:
    """Let attention give a tensor of its shape, and note its operations."""
    functional: Any = torch.nn.functional
    plain, operations = functional.scaled_dot_product_attention, [0.0]

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        operations[0] += 2.0 * query.numel() * key.shape[-2] * (1 + value.shape[-1] / query.shape[-1])
        return query.new_empty(*query.shape[:-1], value.shape[-1])

    functional.scaled_dot_product_attention = attention
    try:
        yield operations
    finally:
        functional.scaled_dot_product_attention = plain


def run(network: nn.Module, work: Callable[[], object]) -> tuple[float, float]:
    """Return operations and the most live bytes of a network's work on shapes."""
    live, flops = LiveBytes(network), FlopCounterMode(display=False)
    with torch.no_grad(), counted_attention() as attention, flops, live:
        work()
    return flops.get_total_flops() + attention[0], float(live.most)


def networks() -> dict[str, tuple[Family, int, Callable[[], nn.Module]]]:
    """Return the published denoising networks: family, a picture's side, and what lays one out."""
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

    def unet(channels: Sequence[int], kinds: Sequence[str], heads: Any, text: int, **more: Any) -> nn.Module:
        made: nn.Module = UNet2DConditionModel(
            block_out_channels=channels,
            down_block_types=kinds,
            up_block_types=[kind.replace("Down", "Up") for kind in reversed(kinds)],
            attention_head_dim=heads,
            cross_attention_dim=text,
            **more,
        )
        return made

    first, told = [320, 640, 1280, 1280], {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    outer = [CROSS, CROSS, CROSS, PLAIN]
    return {
        NAMES["sd1"]: ("sd1", 512, lambda: unet(first, outer, 8, 768)),
        NAMES["sd2"]: ("sd2", 768, lambda: unet(first, outer, [5, 10, 20, 20], 1024, use_linear_projection=True)),
        NAMES["sdxl"]: (
            "sdxl",
            1024,
            lambda: unet(
                first[:3], [PLAIN, CROSS, CROSS], [5, 10, 20], 2048, use_linear_projection=True,
                transformer_layers_per_block=[1, 2, 10], projection_class_embeddings_input_dim=2816, **told,
            ),
        ),
        NAMES["sdxl_refiner"]: (
            "sdxl_refiner",
            1024,
            lambda: unet(
                [384, 768, 1536, 1536], [PLAIN, CROSS, CROSS, PLAIN], [6, 12, 24, 24], 1280,
                use_linear_projection=True, transformer_layers_per_block=4,
                projection_class_embeddings_input_dim=2560, **told,
            ),
        ),
        f"{NAMES['sd3']} medium": (
            "sd3",
            1024,
            lambda: SD3Transformer2DModel(
                num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
            ),
        ),
        f"{NAMES['sd3']}.5 large": (
            "sd3",
            1024,
            lambda: SD3Transformer2DModel(
                num_layers=38, num_attention_heads=38, caption_projection_dim=2432, pos_embed_max_size=192,
                qk_norm="rms_norm",
            ),
        ),
        f"{NAMES['flux']} dev": ("flux", 1024, lambda: FluxTransformer2DModel(guidance_embeds=True)),
    }  # fmt: skip


def text_parameters(family: Family) -> tuple[int, int]:
    """Return the parameters of a family's CLIP networks together, and of its T5."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    sizes = {"l": (768, 12, 12), "h": (1024, 24, 16), "g": (1280, 32, 20)}
    names = {"sd1": "l", "sd2": "h", "sdxl": "lg", "sdxl_refiner": "g", "sd3": "lg", "flux": "l"}[family]
    clips = 0
    for width, layers, heads in (sizes[name] for name in names):
        config = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
        clips += parameters(CLIPTextModel(config))
    if family not in ("sd3", "flux"):
        return clips, 0
    xxl = T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    return clips, parameters(T5EncoderModel(xxl))


def parameters(network: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def autoencoder(channels: int) -> Any:
    """Lay out the VAE that all these families have, with their number of latent channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
    )


def cost(name: str, family: Family, side: int, build: Callable[[], nn.Module]) -> Cost:
    """Count what one model takes."""
    joint, channels = family in ("sd3", "flux"), 16 if family in ("sd3", "flux") else 4
    tokens = {"sd3": 154, "flux": 256}.get(family, 77)
    with torch.device("meta"):
        # Called on the class, because diffusers' own method warns about any change of type.
        network: Any = nn.Module.to(build(), HALF)
        vae: Any = nn.Module.to(autoencoder(channels), HALF)
        clips, t5 = text_parameters(family)
        config = network.config
        width = config.joint_attention_dim if joint else config.cross_attention_dim
        pooled = config.pooled_projection_dim if joint else 1280
        size = side // 8

        def call(rows: int) -> None:
            latents = torch.empty(rows, channels, size, size, dtype=HALF)
            text = torch.empty(rows, tokens, width, dtype=HALF)
            told = torch.empty(rows, pooled, dtype=HALF), torch.empty(rows, 7), torch.empty(rows)
            run_network(family, network, latents, torch.empty(()), text, *told)

        operations, _ = run(network, lambda: call(1))
        _, live = run(network, lambda: call(1 if family == "flux" else 2))
        decode, decode_live = run(vae, lambda: vae.decode(torch.empty(1, channels, size, size, dtype=HALF)))
    own = parameters(network)
    return Cost(
        name, side, own, clips + t5,
        weight_gib=(2 * (own + parameters(vae)) + 4 * clips + 2 * t5) / 2**30,
        network_gib=2 * own / 2**30,
        call_tflop=operations / 1e12,
        calls=STEPS * (1 if family == "flux" else 2),
        decode_tflop=decode / 1e12,
        call_gib=live / 2**30,
        decode_gib=decode_live / 2**30,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print a table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    options = parser.parse_args(arguments)
    costs = [cost(name, *entry) for name, entry in networks().items()]
    titles = ("model", "picture", "network", "texts", "weights", "call", "decode", "TFLOP a call", *RATES)
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for one in costs:
        sizes = [f"{size:.1f} GiB" for size in (one.weight_gib, one.call_gib, one.decode_gib)]
        counts = [f"{count / 1e9:.2f} B" for count in (one.network_parameters, one.text_parameters)]
        seconds = [f"{one.seconds(rate):.1f} s" for rate in RATES.values()]
        row = (one.name, f"{one.pixels}²", *counts, *sizes, f"{one.call_tflop:.2f}", *seconds)
        print(f"| {' | '.join(row)} |")
    with atomic_write(options.out) as file:
        file.write_text(dumps({one.name: asdict(one) for one in costs}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
