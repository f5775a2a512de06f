"""Find links of a built site that lead to no file or no anchor, and what it would load from a network.

python docs/_check_links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Anchors, links and loaded files of a page."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Take down the anchors of a tag, and where it leads."""
        attrs = dict(attrs)
        self.anchors |= {attrs.get("id"), attrs.get("name") if tag == "a" else None}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        elif tag in ("script", "img", "iframe", "source") and attrs.get("src"):
            self.loaded.append(attrs["src"])
        elif tag == "link" and attrs.get("href") and "stylesheet" in attrs.get("rel", ""):
            self.loaded.append(attrs["href"])


def broken_links(root):
    """Give a sentence for each link that leads nowhere, sorted; external links are not followed.

    Parameters
    ----------
    root : Path
        Folder of a built site.
    """
    root = root.resolve()
    pages = {path: _Page(path) for path in sorted(root.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        where = path.relative_to(root)
        found += [f"{where}: loads {src[:80]} from a network" for src in page.loaded if urlsplit(src).netloc]
        for target in {*page.links, *page.loaded}:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not other.is_file():
                found.append(f"{where}: {target} is no file")
            elif anchor and other in pages and anchor not in pages[other].anchors:
                found.append(f"{where}: {target} has no such anchor")
    return sorted(found)


if __name__ == "__main__":
    broken = broken_links(Path(sys.argv[1]))
    print("\n".join(broken) or "every link leads somewhere")
    sys.exit(bool(broken))
