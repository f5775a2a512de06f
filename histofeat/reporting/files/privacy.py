"""A report travels, the machine that made it does not: absolute paths are cut to their last component."""

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Redactor"]

# A slash or a drive letter that starts a word; "50/50", "patches/s", "</b>" and "https://..." do not.
_START = r"""(?:file:/+|(?<![\w.\\~>)\]</-])(?:[A-Za-z]:[\\/]|/(?!/)))"""
_ABSOLUTE = re.compile(_START + r"""[^\s'"`<>|;,()\[\]{}]+""")


class Redactor:
    """Callable that takes absolute paths out of text, and out of plain values made of text.

    Parameters
    ----------
    known : mapping of path-like to str
        Folders with the words that replace them, taken first: a known folder may have spaces in its name.

    Examples
    --------
    >>> Redactor({"/home/me/my data": "data"})("expected /home/me/my data/w.h5, got nothing in /opt/x/y")
    'expected data/w.h5, got nothing in y'
    >>> Redactor()("1,200 patches/s, 50/50")
    '1,200 patches/s, 50/50'
    """

    def __init__(self, known=None):
        spellings = {}
        for path, words in (known or {}).items():
            for form in (Path(path).absolute(), Path(path).resolve()):
                if form.name:
                    spellings.setdefault(str(form), words)
        # The longest first: a parent must not eat the beginning of its child.
        self._known = sorted(spellings.items(), key=lambda pair: -len(pair[0]))

    def __call__(self, value):
        """`value` without absolute paths; mappings and sequences are walked, other types returned as they are."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._text(str(key)): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        return value

    def _text(self, text):
        for spelling, words in self._known:
            text = re.sub(re.escape(spelling) + r"(?![\w-])", lambda _, words=words: words, text)
        return _ABSOLUTE.sub(lambda match: _last_component(match.group()), text)


def _last_component(path):
    stem = path.rstrip("/\\.:!?")
    tail = path[len(stem) :].lstrip("/\\")
    return re.split(r"[\\/]", stem)[-1] + tail
