"""A parsed template is rewritten so that its loops, joined texts and comparisons are counted."""

from __future__ import annotations

from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

COUNTED, JOINED, COMPARED = " counted", " joined", " compared"  # filters that no template can name


class Counting(NodeTransformer):
    """Rewrites a template so that the items of loops and the texts that are joined are counted."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self.environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        written = sum(len(data.data) for part in node.body for data in _texts(part))
        node.iter = self._filter(node.iter, COUNTED, [nodes.Const(written, lineno=node.lineno)])
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), JOINED, [])

    def visit_Operand(self, node: nodes.Operand | nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._filter(node.expr, COMPARED, [])
        return node

    visit_Compare = visit_Operand

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = self._filter(node.key, COMPARED, [])  # hashed
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.name != "self" or node.ctx != "load":  # `self` is Jinja's own, of blocks
            return node
        row = nodes.Name("row", "load", lineno=node.lineno)
        return nodes.Getitem(row, nodes.Const("self"), "load", lineno=node.lineno).set_environment(
            self.environment
        )

    def _filter(self, value: Any, name: str, arguments: list[nodes.Expr]) -> nodes.Filter:
        node = nodes.Filter(value, name, arguments, [], None, None, lineno=value.lineno)
        node.set_environment(self.environment)
        return node


def _texts(node: nodes.Node) -> list[nodes.TemplateData]:
    itself = [node] if isinstance(node, nodes.TemplateData) else []
    return [*itself, *node.find_all(nodes.TemplateData)]
