"""How every page is made: one HTML document from a template, the style of all pages inside it, all text escaped."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

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


def page_address(page: Path, folder: Path) -> str:
    """Return the address of a page from another one in ``folder``; empty if the two do not travel together.

    Args:
        page: the page that is linked.
        folder: where the other one lies; the linked page must be there, or in another folder beside or below it.
    """
    here = folder.resolve()
    near = page.is_file() and page.resolve().is_relative_to(here.parent)
    return quote(Path(os.path.relpath(page.resolve(), here)).as_posix()) if near else ""
