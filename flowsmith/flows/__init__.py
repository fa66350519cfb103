"""Flows: graph, schema, domain, validation, ComfyUI's formats, tokens, grammar, corpus."""

from flowsmith.flows.codec import Codec
from flowsmith.flows.corpus import CorpusError, augment, load_corpus
from flowsmith.flows.domain import Domain
from flowsmith.flows.domain_schema import DomainError
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.grammar import Grammar, GrammarError
from flowsmith.flows.issues import FlowError, FlowIssue
from flowsmith.flows.language import CodecError
from flowsmith.flows.random_flow import random_flow
from flowsmith.flows.schema import InputSpec, NodeType, Schema, SchemaError
from flowsmith.flows.state import State
from flowsmith.flows.templates import TemplateError
from flowsmith.flows.validate import check, validate

__all__ = [
    "Codec",
    "CodecError",
    "CorpusError",
    "Domain",
    "DomainError",
    "Flow",
    "FlowError",
    "FlowIssue",
    "Grammar",
    "GrammarError",
    "InputSpec",
    "Link",
    "Node",
    "NodeType",
    "Schema",
    "SchemaError",
    "State",
    "TemplateError",
    "Value",
    "augment",
    "check",
    "load_corpus",
    "random_flow",
    "validate",
]
