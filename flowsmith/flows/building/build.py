"""A corpus from a folder of workflows and an installation; stopped anywhere, it goes on where it was."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import yaml

from flowsmith.files import atomic_write
from flowsmith.flows.building.filters import Reason
from flowsmith.flows.building.imports import import_all
from flowsmith.flows.building.installed import MODEL_INPUTS, Models, find_models, with_folder
from flowsmith.flows.building.models_yaml import ModelFile, add_models, read_models
from flowsmith.flows.building.report import report_of, text_of
from flowsmith.flows.building.selection import Selected, select
from flowsmith.flows.building.variants import Variants
from flowsmith.flows.building.words import Words, words_of
from flowsmith.flows.flow import Flow
from flowsmith.flows.schema import Schema

T = TypeVar("T")
Watch = Callable[[Iterable[Any], str], Iterable[Any]]
FLOWS, MODELS, REPORT, WORK = "flows", "models.yaml", "report", "imports"
SCHEMA, DOMAIN = "schema.json", "domain.yaml"


@dataclass(frozen=True)
class Settings:
    """How a corpus is made.

    Attributes:
        min_uses: Node classes that stand in fewer flows are left out, with the flows that hold them; 1 or more.
        size: Flows in all, variants among them; 0 for eight times those that were kept.
        seed: Of the variants.
        family: Of all models that a flow may use; None: any.
    """

    min_uses: int = 2
    size: int = 0
    seed: int = 0
    family: str | None = None


def build_corpus(
    source: Path | str,
    schema: Schema,
    out: Path | str,
    settings: Settings | None = None,
    *,
    models_folder: Path | str | None = None,
    server: str | None = None,
    watch: Watch = lambda items, _: items,
) -> dict[str, Any]:
    """Make a corpus.

    Written are ``flows/`` (templated API format, one file each), ``schema.json`` (what is installed, of the
    classes and models that the flows use), ``domain.yaml`` (what a policy may choose), ``models.yaml`` (what stands
    there is kept) and ``report.json`` and ``report.txt``.

    Args:
        source: Folder of workflow files, sub-folders among it.
        schema: What is installed.
        out: Folder of the corpus. Of one that is there, files that did not change are not read again.
        settings: See there.
        models_folder: ComfyUI's folder of models, if it is at hand: families are read off the files' headers.
        server: Address of a running ComfyUI, which is asked for files that are not at hand.
        watch: Wraps what takes long, with a name for it, to show progress.

    Returns:
        The report.

    Raises:
        SourceError: The folder holds no workflow file.
        ModelsFileError: ``models.yaml`` cannot be used.
        ModelsFolderError: ``models_folder`` is none.
    """
    out, settings = Path(out), settings or Settings()
    schema = schema if models_folder is None else with_folder(schema, models_folder)
    written = read_models(out / MODELS) if (out / MODELS).exists() else {}
    models = find_models(schema, written, models_folder, server, lambda names: watch(names, "models"))
    imports = import_all(source, schema, out / WORK, lambda files: watch(files, "workflows"))
    named = {
        f"{MODEL_INPUTS[i]}/{name}" for kept in imports for _, i, name in kept.files if i in MODEL_INPUTS
    }
    missing = {name: models.files.get(name, _not_installed(models, name)) for name in sorted(named)}
    add_models(out / MODELS, {name: models.files[name] for name in models.installed} | missing, written)
    selected = select(imports, schema, models, settings.min_uses, settings.family)
    size = settings.size or 8 * len(selected.flows)
    corpus = Variants(selected.flows.values(), schema, models).grow(
        selected.flows, Random(settings.seed), size
    )
    words = _words(selected, corpus, schema)
    report = report_of(selected, corpus, models, {"from": str(source), **asdict(settings)})
    if words is not None:
        report["tokens"] = words.told()
    _write(out, corpus, words, report)
    return report


def _words(selected: Selected, corpus: dict[str, Flow], schema: Schema) -> Words | None:
    """Return how the corpus is spoken of; what has no tokens is taken out of it, and None left if all is."""
    words = words_of(corpus, schema) if corpus else None
    for name, why in words.unspoken.items() if words else ():
        del corpus[name]
        if name in selected.flows:
            selected.drop(name, Reason("no_tokens", why))
    return words


def _not_installed(models: Models, name: str) -> ModelFile:
    folder, file = name.split("/", 1)
    return ModelFile(models.family(folder, file), note="not installed")


def _write(out: Path, corpus: Mapping[str, Flow], words: Words | None, report: dict[str, Any]) -> None:
    with atomic_write(out / FLOWS) as folder:
        folder.mkdir()
        for name, flow in corpus.items():
            (folder / f"{name}.json").write_text(
                json.dumps(flow.to_template(), indent=1) + "\n", encoding="utf-8"
            )
    schema = words.schema.to_object_info() if words else {}
    _write_text(out / SCHEMA, json.dumps(schema, indent=1) + "\n")
    domain = yaml.safe_dump(words.domain.to_json(), allow_unicode=True, sort_keys=False) if words else "{}\n"
    _write_text(out / DOMAIN, domain)
    _write_text(out / f"{REPORT}.json", json.dumps(report, indent=1) + "\n")
    _write_text(out / f"{REPORT}.txt", text_of(report))


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
