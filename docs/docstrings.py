"""Turns what our docstrings have of reStructuredText into Markdown: roles, ``::`` blocks and grid tables."""

from __future__ import annotations

import re
from textwrap import dedent, indent
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`~?([\w.]+)`")
_LITERAL = re.compile(r"^( *)(.*)::\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
_TABLE_RULE = re.compile(r"^ *\+-[-+]*\+\n", re.MULTILINE)
_TABLE_HEAD = re.compile(r"^( *)\+=[=+]*\+$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites every docstring when it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value, obj)


def to_markdown(text: str, owner: griffe.Object) -> str:
    """A docstring in Markdown; names in roles link to where they are documented, if they are."""

    def link(role: re.Match[str]) -> str:
        name = role[1]
        try:
            target = owner.resolve(name)
        except griffe.NameResolutionError:
            target = name
        short = name.removeprefix("distilface_st.") if name.count(".") == 1 else name.rpartition(".")[2]
        return f'<autoref identifier="{target}" optional><code>{short}</code></autoref>'

    def fence(block: re.Match[str]) -> str:
        margin, lead, code = block.groups()
        fenced = indent(f"```python\n{dedent(code).rstrip()}\n```\n\n", margin)
        return f"{margin}{lead}:\n\n{fenced}" if lead else fenced

    text = _LITERAL.sub(fence, _ROLE.sub(link, text + "\n"))
    text = _TABLE_HEAD.sub(lambda rule: rule[1] + rule[0].strip().replace("+", "|").replace("=", "-"), text)
    text = _TABLE_RULE.sub("", text)
    return re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE).rstrip()
