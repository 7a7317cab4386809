"""How every page is made: one HTML document from a template, the style of all pages inside it, all text escaped."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monai_fair import __version__


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a page as one HTML document without scripts, which loads nothing.

    Args:
        template: name of its file, such as ``page.html``.
        content: what it prints; every text that is no :class:`markupsafe.Markup` is escaped, and a name that is absent
            is an error. ``style`` and ``version`` are added.
    """
    loader = PackageLoader("monai_fair.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, _, _ = loader.get_source(environment, "page.css")
    return environment.get_template(template).render(content, style=Markup(style), version=__version__)
