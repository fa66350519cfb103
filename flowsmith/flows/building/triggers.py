"""Trigger words: what a LoRA wants to read in the prompt stands behind it wherever the LoRA is used."""

from flowsmith.flows.building.installed import Models
from flowsmith.flows.building.missing import with_inputs
from flowsmith.flows.flow import Flow, Link, Value
from flowsmith.flows.schema import Schema
from flowsmith.flows.templates import escape, has_prompt


def loras_of(flow: Flow) -> list[str]:
    """Return the LoRA files of a flow."""
    values = (node.get("lora_name") for node in flow.nodes)
    return [value for value in values if isinstance(value, str)]


def with_triggers(flow: Flow, schema: Schema, models: Models, gone: tuple[str, ...] = ()) -> Flow:
    """Put the trigger words of a flow's LoRAs behind the prompt, each once.

    Args:
        flow: Templated.
        schema: What is installed.
        models: Tells the words.
        gone: LoRAs that were taken out; their words go with them.
    """
    words = list(
        dict.fromkeys(word for lora in loras_of(flow) for word in models.of("loras", lora).trigger_words)
    )
    stale = {word for lora in gone for word in models.of("loras", lora).trigger_words} - set(words)
    if not words and not stale:
        return flow
    nodes = []
    for node in flow.nodes:
        changes: dict[str, Value | Link] = {}
        for name, value in node.inputs:
            if (
                isinstance(value, str)
                and schema_kind(schema, node.class_type, name) == "text"
                and has_prompt(value)
            ):
                changes[name] = _text(value, words, stale)
        nodes.append(with_inputs(node, changes))
    return Flow.from_nodes(nodes, schema)


def schema_kind(schema: Schema, class_type: str, name: str) -> str | None:
    """Return the kind of an input that a class always has, or None."""
    return next((spec.kind for spec in schema.node(class_type).inputs if spec.name == name), None)


def _text(template: str, words: list[str], stale: set[str]) -> str:
    for word in stale:
        template = template.removesuffix(f", {escape(word)}").replace(f", {escape(word)},", ",")
    for word in words:
        if escape(word).lower() not in template.lower():
            template += f", {escape(word)}"
    return template
