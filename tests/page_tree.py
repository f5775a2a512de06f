"""Read a page into a tree, as a browser would, and list what makes it hard to use: broken links, ids, headings."""

from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "img", "br", "hr", "link", "input"}
#: Attributes that refer to ids of the same page.
REFERENCES = ("aria-labelledby", "aria-describedby", "for")


class _Reader(HTMLParser):
    """Builds a tree; a tag that is not closed where it should be is an error."""

    def __init__(self):
        super().__init__()
        self.builder, self.open = ElementTree.TreeBuilder(), []

    def handle_starttag(self, tag, attrs):
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> at {self.getpos()}, open: {self.open}"
        self.builder.end(self.open.pop())

    def handle_startendtag(self, tag, attrs):
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def read_page(text):
    """Return the root element of an HTML page."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open, reader.open
    return reader.builder.close()


def words_of(element):
    """Return the text of an element."""
    return " ".join("".join(element.itertext()).split())


def problems(root):
    """Return what is wrong with the structure of a page, in words."""
    found = []
    ids = [element.get("id") for element in root.iter() if element.get("id") is not None]
    found += [f"id {id!r} occurs twice" for id in {id for id in ids if ids.count(id) > 1}]
    for element in root.iter():
        link = element.get("href", "")
        if link.startswith("#") and link[1:] not in ids:
            found.append(f"{link} leads nowhere")
        for name in REFERENCES:
            found += [f"{name} {id!r} is not there" for id in element.get(name, "").split() if id not in ids]
        found += [f"{element.tag} has {name}" for name in element.attrib if name.startswith("on") or name == "style"]
        if element.tag == "img" and not element.get("alt"):
            found.append("an image has no words")
    levels = [int(element.tag[1]) for element in root.iter() if element.tag in ("h1", "h2", "h3", "h4", "h5", "h6")]
    found += [f"h{b} follows h{a}" for a, b in zip([0, *levels], levels, strict=False) if b > a + 1]
    if levels.count(1) != 1:
        found.append(f"{levels.count(1)} headings of the first level")
    if len(list(root.iter("main"))) != 1:
        found.append("not one main part")
    return found
