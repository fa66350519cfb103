"""What is installed: ``flowsmith`` and ``miniature``; the other folders run from an editable checkout."""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md")

REQUIREMENTS = [
    "torch>=2.8",  # everything; the index chooses the torchvision that belongs to it
    "torchvision",  # picture reading and grids; open_clip's transforms
    "lightning>=2.6.4",  # the engine; 2.6.2 and 2.6.3 were withdrawn as compromised
    "transformers>=5.0",  # policy, surrogate encoders, CLIP text encoders
    "tokenizers>=0.22",  # the policy's own text tokenizer
    "peft>=0.17",  # LoRA adapters on hub models
    "accelerate>=1.0",  # how transformers and diffusers load large checkpoints
    "torchmetrics>=1.8",  # judges
    "diffusers>=0.35",  # UNet, VAE and text encoders of the executor
    "spandrel>=0.4.1",  # upscale models: tells the architecture by the tensors
    "omegaconf>=2.3",  # ${…} in configs
    "jsonargparse[signatures]>=4.53",  # the command line; its messages, as worded there, are read
    "docstring-parser>=0.16",  # texts of --help
    "tensorboard>=2.19",  # scalars, pictures and flows of a run
    "open_clip_torch>=3.0",  # judges that are CLIP models
    "safetensors>=0.5",  # every weight that is handed from stage to stage
    "pyarrow>=18",  # scored flows
    "numpy>=2.0",  # statistics of the evaluation
    "scipy>=1.14",  # connected areas and filters of the checker and the faults
    "PyYAML>=6.0",  # configs and domains
    "comfyui-autograph>=2.3",  # graphs of ComfyUI's editor to its API format
    "aiohttp>=3.14",  # ComfyUI servers: requests and websockets
    "yarl>=1.20",  # their addresses; aiohttp's own
    "pillow>=11",  # pictures in files
    "matplotlib>=3.9",  # reward against guidance weight
    "tqdm>=4.66",  # progress of what is no trainer
]

EXTRAS = {
    "dev": [
        "hypothesis>=6.120",  # properties
        "mypy>=1.17",
        "pre-commit>=4.0",
        "pytest>=8.4",
        "pytest-xdist>=3.6",  # tests on every core
        "ruff>=0.12",
        "setuptools>=77",  # the test of the wheel builds one
        "types-PyYAML",
        "types-tqdm",
    ],
    "bench": [
        "psutil>=6.0",  # memory of a process
        "trl==1.16.*",  # what GRPO is compared with
    ],
}

setup(
    name="flowsmith",
    version="0.1.0",
    description="Trains a language model to write the ComfyUI flow that suits a prompt.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["flowsmith", "flowsmith.*", "miniature", "miniature.*"]),
    package_data={
        "flowsmith": ["**/*.json", "py.typed"],
        "miniature": [f"**/*.{kind}" for kind in ("json", "jsonl", "yaml", "txt", "safetensors", "parquet")],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["flowsmith = flowsmith.commands.command_line:main"]},
)
