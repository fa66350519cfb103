"""Lists of model files, extended by the names in a graph: its author had them, whoever reads it may not."""

from collections.abc import Iterable, Mapping

from flowsmith.flows.flow import Value
from flowsmith.flows.inputs import InputSpec
from flowsmith.flows.issues import is_text
from flowsmith.flows.schema import Schema

_ENDINGS = (
    ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl", ".yaml", ".vae",
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".latent",
)  # fmt: skip


def leaves_folder(name: str) -> bool:
    """Return whether a file name may lead out of the folder that it belongs in."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or parts[0][1:2] == ":" or "\0" in name


def is_file(spec: InputSpec, value: object) -> bool:
    """Return whether an input lists files and a value is one that it does not list.

    It is by its ending, or for want of any list: loaders of a server without models list nothing.
    """
    if spec.kind != "choice" or spec.branches or not isinstance(value, str) or not is_text(value):
        return False
    if value in spec.choices:
        return False
    return value.lower().endswith(_ENDINGS) or not spec.choices


def with_files(schema: Schema, names: Mapping[tuple[str, str], Iterable[Value]]) -> Schema:
    """Return the schema with names added to the ends of its lists.

    Args:
        schema: What is installed.
        names: By class and input; a choice each.
    """
    choices = {}
    for (class_type, name), added in names.items():
        spec = next(spec for spec in schema.nodes[class_type].inputs if spec.name == name)
        choices[f"{class_type}.{name}"] = [*spec.choices, *added]
    return schema.restrict(choices=choices)
