"""Which model files are installed, and of which family each is."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowsmith.errors import FlowsmithError
from flowsmith.flows.building.families import family_of, family_of_metadata, family_of_name, refined_by_name
from flowsmith.flows.building.headers import read_header
from flowsmith.flows.building.models_yaml import ModelFile, refine
from flowsmith.flows.building.server_metadata import fetch_metadata
from flowsmith.flows.exchange.file_lists import leaves_folder
from flowsmith.flows.schema import Schema

MODEL_INPUTS = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models", "lora_name": "loras"}
"""Inputs that name what has a family, in any node class, with ComfyUI's folder."""

_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "ckpt_name": ("checkpoints",), "unet_name": ("diffusion_models", "unet"), "lora_name": ("loras",),
    "vae_name": ("vae",), "clip_name": ("text_encoders", "clip"), "clip_name1": ("text_encoders", "clip"),
    "clip_name2": ("text_encoders", "clip"), "clip_name3": ("text_encoders", "clip"),
    "UpscaleModelLoader.model_name": ("upscale_models",),
}  # fmt: skip
_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


class ModelsFolderError(FlowsmithError):
    """A folder of models is none."""


@dataclass(frozen=True)
class Models:
    """Model files by "folder/name".

    Attributes:
        files: What is known of each, installed or not.
        installed: Those that are installed, in the schema's order.
        contradicted: Where a ``models.yaml`` says what the file itself does not, in words.
    """

    files: Mapping[str, ModelFile]
    installed: tuple[str, ...]
    contradicted: tuple[str, ...] = ()

    def of(self, folder: str, name: str) -> ModelFile:
        """Return what is known of a file."""
        return self.files.get(f"{folder}/{name}", ModelFile())

    def family(self, folder: str, name: str) -> str | None:
        """Return the family of a file; of one that is not installed, perhaps by the name it is published under."""
        known = self.of(folder, name).family
        if known is None and f"{folder}/{name}" not in self.installed and folder != "loras":
            return family_of_name(name)
        return known

    def fitting(self, folder: str, family: str | None) -> list[str]:
        """Return the installed files of a family; none of an unknown one."""
        start = f"{folder}/"
        names = (name for name in self.installed if name.startswith(start) and family is not None)
        return [name.removeprefix(start) for name in names if self.files[name].family == family]


def with_folder(schema: Schema, folder: Path | str) -> Schema:
    """Return the schema with the files of ComfyUI's models folder added to its lists.

    Raises:
        ModelsFolderError: It is no folder, or holds none of ComfyUI's.
    """
    root = Path(folder)
    found = {name: tuple(_names(root, places)) for name, places in _FOLDERS.items()}
    if not any((root / place).is_dir() for places in _FOLDERS.values() for place in places):
        raise ModelsFolderError(
            f"models={folder}: holds none of the folders checkpoints, loras, …; name ComfyUI's folder models"
        )
    choices = {}
    for node in schema.nodes.values():
        for spec in node.inputs:
            files = found.get(f"{node.name}.{spec.name}", found.get(spec.name, ()))
            if spec.kind == "choice" and not spec.branches and files:
                choices[f"{node.name}.{spec.name}"] = dict.fromkeys((*spec.choices, *files))
    return schema.restrict(choices=choices)


def find_models(
    schema: Schema,
    written: Mapping[str, ModelFile],
    folder: Path | str | None = None,
    server: str | None = None,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Models:
    """Find the family of each installed checkpoint, diffusion model and LoRA.

    By its header, then by what the server tells of it, then by what is ``written``.

    Args:
        schema: Lists what is installed.
        written: A ``models.yaml``.
        folder: ComfyUI's models folder, if it is at hand.
        server: Address of a running ComfyUI, if there is one.
        watch: Wraps the files' names, to show progress.
    """
    listed = dict.fromkeys(_listed(schema))
    files, contradicted = dict(written), list[str]()
    for name in watch(listed):
        place, file = name.split("/", 1)
        known = written.get(name, ModelFile())
        measured = refined_by_name(_measured(place, file, folder, server), file)
        family = refine(measured, known.family)
        if known.family not in (None, family):
            contradicted.append(
                f"{name}: models.yaml says {known.family}, the file itself {family}, which counts"
            )
        files[name] = ModelFile(family, known.trigger_words, known.strength, known.note)
    return Models(files, tuple(listed), tuple(contradicted))


def _listed(schema: Schema) -> Iterator[str]:
    for node in schema.nodes.values():
        for spec in node.inputs:
            if spec.name in MODEL_INPUTS and spec.kind == "choice":
                yield from (f"{MODEL_INPUTS[spec.name]}/{name}" for name in spec.choices)


def _measured(place: str, file: str, folder: Path | str | None, server: str | None) -> str | None:
    if leaves_folder(file):  # a list of files comes from a server or a file of whoever
        return None
    inputs = (name for name, known in MODEL_INPUTS.items() if known == place)
    for inner in _FOLDERS[next(inputs)] if folder is not None else ():
        header = read_header(Path(folder or "", inner, file.replace("\\", "/")))
        if header is not None:
            return family_of(header)
    return None if server is None else family_of_metadata(fetch_metadata(server, place, file))


def _names(root: Path, places: tuple[str, ...]) -> Iterator[str]:
    for place in places:
        for path in sorted((root / place).rglob("*")):
            if path.name.lower().endswith(_ENDINGS) and path.is_file():
                yield path.relative_to(root / place).as_posix()
