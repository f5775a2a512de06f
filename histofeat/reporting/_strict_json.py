"""Write what a result holds as JSON that every parser reads: no NaN, no infinity, no numpy, no paths of the machine."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from histofeat.metrics import plain_values as jsonable

PathLike = str | os.PathLike[str]
# A slash or a drive letter that starts a word; "50/50", "patches/s", "</b>" and "https://..." do not.
_START = r"""(?:file:/+|(?<![\w.\\~>)\]</-])(?:[A-Za-z]:[\\/]|/(?!/)))"""
_ABSOLUTE = re.compile(_START + r"""[^\s'"`<>|;,()\[\]{}]+""")


def dump(payload: Any, path: PathLike) -> Path:
    """Write `payload` to the file `path`, in UTF-8, indented, key order kept.

    Parameters
    ----------
    payload : object
        Passed through `jsonable`.
    path : path-like
        The file; an existing one is replaced.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = Path(path)
    text = json.dumps(jsonable(payload), indent=1, allow_nan=False, ensure_ascii=False)
    # A list of numbers on one line: a matrix reads as one. Strings never hold a raw line break, so none is touched.
    text = re.sub(r'\[\n[^\[\]{}"]*\]', lambda numbers: f"[{' '.join(numbers.group()[1:-1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def load(path):
    """Return the content of the JSON file `path`, an empty dict if that is no JSON object."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def own_folders() -> dict[Path, str]:
    """Give the current folder and the home, as far as there are any, with the words that stand for them in a page."""
    found = {}
    for find, words in ((Path.cwd, "."), (Path.home, "~")):
        with suppress(OSError, RuntimeError):
            found[find()] = words
    return found


class Redactor:
    """Callable that cuts absolute paths in text, and in plain values made of text, to their last component.

    Parameters
    ----------
    known : mapping of path-like to str
        Folders with the words that replace them, first: a known folder may have spaces in its name.

    Examples
    --------
    >>> Redactor({"/home/me/my data": "data"})("expected /home/me/my data/w.h5, got nothing in /opt/x/y")
    'expected data/w.h5, got nothing in y'
    >>> Redactor()("1,200 patches/s, 50/50")
    '1,200 patches/s, 50/50'
    """

    def __init__(self, known: Mapping[PathLike, str] | None = None) -> None:
        spellings = {}
        for path, words in (known or {}).items():
            for form in (Path(path).absolute(), Path(path).resolve()):
                if form.name:
                    spellings.setdefault(str(form), words)
        # The longest first: a parent must not replace the beginning of its child.
        self._known = sorted(spellings.items(), key=lambda pair: -len(pair[0]))

    def __call__(self, value: Any) -> Any:
        """Return `value` without absolute paths; other types than text, mappings and sequences stay as they are."""
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
