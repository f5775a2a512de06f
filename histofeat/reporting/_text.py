"""Values and strings as a page prints them: numbers, intervals, Markdown without accidental markup."""

import re

UNDEFINED = "–"


def escape_markdown(text):
    """Return `text` as Markdown that reads as the text itself: no markup, no HTML, no line break.

    Examples
    --------
    >>> escape_markdown("<b>*a*|b</b>"), escape_markdown("1. a_b - _c_")
    ('&lt;b&gt;\\\\*a\\\\*\\\\|b&lt;/b&gt;', '1\\\\. a_b - \\\\_c\\\\_')
    """
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", text)
    # An underscore inside a word is no markup, and most are: "balanced_accuracy".
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    # The beginning of a line may not become a list or an underline.
    return re.sub(r"^(\d{1,9})?([-+=.)])(?=\s|$|-|=)", r"\1\\\2", text)


def count(value, digits=0):
    """Return a number with its thousands separated, a dash where it is undefined.

    Examples
    --------
    >>> count(277524), count(1234.56, 1), count(None)
    ('277,524', '1,234.6', '–')
    """
    return UNDEFINED if _undefined(value) else f"{value:,.{digits}f}"


def number(value, digits=3):
    """Return `value` with fixed digits, a dash where it is undefined (None or NaN).

    Examples
    --------
    >>> number(0.91449), number(None), number(float("nan"))
    ('0.914', '–', '–')
    """
    return UNDEFINED if _undefined(value) else f"{value:.{digits}f}"


def signed(value, digits=3):
    """Return `value` with its sign and fixed digits, a dash where it is undefined.

    Examples
    --------
    >>> signed(0.0214), signed(None)
    ('+0.021', '–')
    """
    return UNDEFINED if _undefined(value) else f"{value:+.{digits}f}"


def percent(value, digits=1):
    """Return a share in percent, a dash where it is undefined.

    Examples
    --------
    >>> percent(0.0214), percent(None)
    ('2.1 %', '–')
    """
    return UNDEFINED if _undefined(value) else f"{100 * value:.{digits}f} %"


def interval(bounds, write=number, between=" – "):
    """Return both ends of an interval, one dash where an end is undefined.

    Examples
    --------
    >>> interval((0.5, 0.75)), interval((-0.1, 0.2), signed, " to "), interval((None, 1.0))
    ('0.500 – 0.750', '-0.100 to +0.200', '–')
    """
    return UNDEFINED if any(map(_undefined, bounds)) else between.join(map(write, bounds))


def with_interval(value, bounds, write=number):
    """Return a value followed by its interval, the value alone where the interval is undefined.

    Examples
    --------
    >>> with_interval(0.91449, [0.9012, 0.9262]), with_interval(0.5, (None, None)), with_interval(None, (0, 1))
    ('0.914 [0.901, 0.926]', '0.500', '–')
    """
    if _undefined(value) or any(map(_undefined, bounds)):
        return write(value)
    return f"{write(value)} [{interval(bounds, write, ', ')}]"


def finding(data):
    """Return in a sentence which value of a figure is the highest and which the lowest; nothing where there is none.

    Parameters
    ----------
    data : dict
        The data of a figure, as the ``*_data`` functions return them.

    Examples
    --------
    >>> rows = [{"name": "lbp", "value": 0.8}, {"name": "color", "value": 0.9}]
    >>> finding({"figure": "forest", "metric": "roc_auc", "rows": rows})
    'color has the highest ROC-AUC, 0.900; lbp the lowest, 0.800.'
    >>> finding({"y_label": "patches", "points": [{"name": "a", "y": 1200}, {"name": "b", "y": 841}]})
    'a has the highest patches, 1,200; b the lowest, 841.'
    """
    what, values = _shown(data)
    values = [(name, value) for name, value in values if not _undefined(value)]
    if not values:
        return ""
    (low, lowest), *_, (high, highest) = sorted([*values, *values], key=lambda pair: pair[1])
    write = count if all(float(value).is_integer() for _, value in values) and highest > 1 else number
    first = f"{high} has the highest {what}, {write(highest)}"
    return f"{first}; {low} the lowest, {write(lowest)}." if low != high else f"{first}."


def _shown(data):
    """Return what a figure shows, and its values by name."""
    area = "average precision" if data.get("figure", "").startswith("pr") else "ROC-AUC"
    panels = data.get("panels") or [data]
    if "curves" in panels[0]:
        key = area.lower().replace("-", "_").replace(" ", "_")
        return area, [(curve["model"], curve[key]) for curve in panels[0]["curves"]]
    if "lines" in panels[0]:
        lines = [(f"{line['name']} ({panel['title']})", line["y"]) for panel in panels for line in panel["lines"]]
        return data["y_label"], [(name, y) for name, values in lines for y in values]
    if "matrices" in data:
        cells = [
            (m["name"], label, m["rates"][at][at]) for m in data["matrices"] for at, label in enumerate(data["labels"])
        ]
        return "share of right labels", [(f"{name}, {label},", rate) for name, label, rate in cells]
    if "points" in data:
        return data["y_label"], [(point["name"], point["y"]) for point in data["points"]]
    scored = [
        (row, row["scores"]["roc_auc"]["value"] if "scores" in row else row["value"]) for row in data.get("rows", ())
    ]
    named = [(f"{row['name']} with {row['head']}" if "head" in row else row["name"], value) for row, value in scored]
    return data.get("x_label", area), named


def _undefined(value):
    return value is None or value != value


def plain_words(value):
    """Return a plain value as words: yes or no, lists and mappings with commas, "none" for None and empty lists.

    Examples
    --------
    >>> plain_words({"a": True, "b": [1, None], "c": []})
    'a: yes, b: 1, none, c: none'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {plain_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_words, value)) or "none"
    return "none" if value is None else str(value)


def file_words(names):
    """Return a file-safe word for each of `names`, all different.

    Examples
    --------
    >>> file_words(["XGBoost", "x g", "x/g"])
    ['xgboost', 'x-g', 'x-g-3']
    """
    words = []
    for name in names:
        plain = word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "head"
        number = len(words) + 1
        while word in words:
            word, number = f"{plain}-{number}", number + 1
        words.append(word)
    return words
