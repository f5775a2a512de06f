"""Settings of the site: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``, without a network."""

import inspect
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "tests")]  # scripts beside this file, and the order of the wings

import _check_links  # noqa: E402
import _generate  # noqa: E402
from _markdown import for_the_site  # noqa: E402

import histofeat  # noqa: E402

logger = logging.getLogger(__name__)
project = "histofeat"
author = "The histofeat developers"
version = release = histofeat.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated/extra", "gallery/**/*.py", "gallery/**/*.ipynb", "gallery/*.md5"]
suppress_warnings = ["config.cache"]

# Names in single backticks of a docstring are links where they name an object, else they are set in italics.
default_role = "autolink"
add_module_names = False
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's Parameters give types with shapes and ranges
autodoc_member_order = "bysource"
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
numpydoc_show_class_members = False
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = "histofeat"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["generated/extra"]
html_show_sourcelink = html_copy_source = False
html_sidebars = {"getting-started": [], "install": []}
html_show_search_summary = False  # it is fetched, which a page opened from a file may not do
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "histofeat"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    # Elsewhere code and outputs need the width more than short pages need their contents.
    "secondary_sidebar_items": {
        pages: ["page-toc"]
        for pages in ("generated/api/**", "generated/project/**", "commands", "files-and-long-runs", "troubleshooting")
    },
}
copyright = "the histofeat developers. MIT licence; research software, not a medical device"

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "matplotlib_animations": False,
}


def setup(app):
    """Write the pages that are made from the program, rewrite links, and check all of them at the end."""
    app.connect("config-inited", _make_pages)
    app.connect("source-read", _rewrite_links)
    app.connect("autodoc-skip-member", _skip_routing)
    app.connect("autodoc-process-docstring", _document_data, priority=1)
    app.connect("doctree-resolved", _number_references)
    app.connect("build-finished", _check)


def _make_pages(app, config):
    # Before Sphinx looks for sources: autosummary writes a page for each name that it finds in them.
    _generate.write_pages(DOCS / "generated")


def _rewrite_links(app, docname, source):
    if docname.startswith(("gallery/", "generated/api/")):
        return
    source[0] = for_the_site(source[0], DOCS / f"{docname}.md")


def _skip_routing(app, kind, name, member, skip, options):
    """Leave out what scikit-learn adds to every estimator."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def _document_data(app, kind, name, value, options, lines):
    """Take the text beside a constant in its own file: a face has none, and Sphinx would show that of its type."""
    ends, of_type = " ".join("\n".join(lines).split())[-60:], " ".join((inspect.getdoc(type(value)) or "").split())
    if kind in ("data", "attribute") and ends and ends in of_type:
        lines[:] = _generate.comment_of(*name.rpartition(".")[::2])


def _number_references(app, doctree, docname):
    """Call references 1, 2 ..., as the docstrings do: numpydoc makes them unique for LaTeX."""
    for text in list(doctree.findall(nodes.Text)):
        number = re.fullmatch(r"\[?R[0-9a-f]{8,}-(\d+)\]?", text)
        if number:
            text.parent.replace(text, nodes.Text(text.replace(text.strip("[]"), number[1])))


def _check(app, error):
    if error is None and app.builder.format == "html":
        for broken in _check_links.broken_links(Path(app.outdir)):
            logger.warning(broken)
            app.statuscode = 1
