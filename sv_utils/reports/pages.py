"""
Pages for a browser: an executed notebook as a report, and the index of a profile.

A page holds everything it shows. It needs no network, no script and no other file; it is light or dark as the reader's
system is, and on a narrow screen what is wide (a table, the picture of the pipeline) scrolls within its own box.

Names of files and speakers come from others. Of what a notebook put out only the `TAGS` become part of the page,
anything else is shown as text; and a policy in the page's head forbids scripts and every address. No page tells where
the files of this machine lie, and one that carries voices says so.
"""

import html
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sv_utils.base import paths
from sv_utils.base.paths import replace_on_success
from sv_utils.pipeline import keys, records
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import EXTRA, FIRST, LAST, TRAINING, Stage

# jsonschema, by which notebooks are read, would first build a grammar of addresses, which none of them needs: a second.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --dim: #5a6776; --line: #d9dfe6; --box: #f5f7f9; --mark: #0b6aa8;
  --paper: #fff; --late: #a65c00; --shade: #1d273338 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --dim: #9aa7b5; --line: #36414d; --box: #1e262f; --mark: #6cb8ec; --paper: #141a21;
    --late: #f0a94e; --shade: #000000a8 } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0 auto; max-width: 70rem; padding: 1.25rem clamp(1rem, 4vw, 2.5rem) 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.6 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif }
h1 { font-size: clamp(1.6rem, 5vw, 2.25rem); line-height: 1.2; margin: 1.5rem 0 1rem; letter-spacing: -0.01em }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.75rem 0 0.5rem }
p, li, dd { max-width: 46rem; overflow-wrap: break-word }
a { color: var(--mark); text-underline-offset: 0.15em }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
.anchor-link { visibility: hidden; margin-left: 0.35em; text-decoration: none }
:is(h1, h2, h3):hover .anchor-link { visibility: visible }
nav { display: flex; justify-content: space-between; gap: 1rem; font-size: 0.9rem; color: var(--dim) }
.scroll { overflow-x: auto; margin: 1rem 0; max-width: 100%; /* a shade where more lies beyond the edge */
  background: linear-gradient(to right, var(--paper) 40%, transparent) left / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / 0.9rem 100% no-repeat,
    linear-gradient(to left, var(--shade), transparent) right / 0.9rem 100% no-repeat }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; border: 0 !important }
th, td { padding: 0.4rem 0.7rem 0.4rem 0; text-align: left !important; vertical-align: top !important; border: 0;
  border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--dim) }
:is(th, td):first-child, td code { white-space: nowrap }
/* a table of many columns rather breaks its names than stand beyond the page */
tr:has(> :nth-child(10)) > :is(th, td) { padding-right: 0.5rem; white-space: normal }
.whole { white-space: nowrap }
.carries { border-left: 4px solid var(--late); padding-left: 0.8rem }
caption { text-align: left; color: var(--dim) }
td audio { height: 2.2rem; width: 13rem; max-width: none }
audio { max-width: 100%; vertical-align: middle }
img { max-width: 100%; height: auto; margin: 0.75rem 0; padding: 0.5rem; border-radius: 0.5rem; background: #fff }
pre, code { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", Consolas, monospace; font-size: 0.86em }
pre { margin: 0.75rem 0; padding: 0.75rem 1rem; border-radius: 0.5rem; background: var(--box); overflow-x: auto;
  line-height: 1.45 }
:not(pre) > code { background: var(--box); border-radius: 0.25rem; padding: 0.1em 0.3em; overflow-wrap: anywhere }
math[display=block] { font-size: 1.15em; width: max-content; min-width: 100%; padding: 0.25rem 0 }
details { margin: 0.75rem 0; color: var(--dim) }
summary { cursor: pointer; font-size: 0.85rem; width: fit-content; padding: 0.15rem 0 }
details > :not(summary) { color: var(--ink) }
.pipeline { min-width: 46rem; width: 100%; height: auto; font: 600 13px system-ui, "Noto Sans", sans-serif }
.pipeline rect { fill: var(--box); stroke: var(--line); stroke-width: 1.5 }
.pipeline text { fill: var(--ink) }
.pipeline .state { font-weight: 400; font-size: 11.5px; fill: var(--dim) }
.pipeline path { fill: none; stroke: var(--line); stroke-width: 1.5 }
.pipeline .done rect { stroke: var(--mark) }
.pipeline .outdated rect { stroke: var(--late); stroke-dasharray: 5 3 }
.pipeline .open rect { stroke-dasharray: 2 4 }
.pipeline a:is(:hover, :focus-visible) rect { stroke-width: 3 }
@media (prefers-color-scheme: dark) { .highlight { filter: brightness(1.5) saturate(0.8) } }
@media print { details, nav { display: none } }
"""
TEMPLATE = """
{%- extends 'basic/index.html.j2' -%}
{% block input_group %}<details class="code"><summary>
{%- if 'injected-parameters' in cell.metadata.tags %}the parameters of this run
{%- elif 'parameters' in cell.metadata.tags %}the parameters' defaults{% else %}code{% endif -%}
</summary>{{ super() }}</details>{% endblock %}
"""
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
)
TAGS = {"a", "audio", "b", "blockquote", "br", "code", "del", "div", "em", "hr", "i", "img", "p", "pre", "source"}
TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "li", "ol", "span", "strong", "sub", "sup", "ul", "wbr"}
TAGS |= {"caption", "table", "tbody", "td", "tfoot", "th", "thead", "tr"}
ATTRIBUTES = {"alt", "class", "colspan", "controls", "rowspan", "scope", "title", "type"}
SOUNDS_AND_IMAGES = ("data:audio/", "data:image/png", "data:image/jpeg")
SHOWN = ("text/html", "text/markdown", "text/plain", "image/png", "image/jpeg")  # of what a cell put out
SUMMARY = {"done": "up to date", "outdated": "out of date", "open": "not run yet"}


def report(notebook: Path, home: str) -> str:
    """
    Give an executed notebook as one page: its code folded, its formulas as MathML.

    Parameters
    ----------
    notebook : Path
        The executed notebook.
    home : str
        Link from the page to the index of its profile.

    Returns
    -------
    str
        HTML.
    """
    import nbformat  # with nbconvert a second to load, which a stage that is up to date need not wait for
    from pygments.formatters import HtmlFormatter

    content = nbformat.read(notebook, as_version=4)
    _name_figures(content)
    _keep_harmless(content)
    body, _ = _exporter().from_notebook_node(content)
    body = _carried(body) + _boxed(body)
    given = content.metadata.get("papermill", {}).get("parameters", {})
    body = without_places(body, given.values())
    title = re.search(r"(?m)^# (.+)$", content.cells[0].source)
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    return _page(title[1] if title else notebook.stem, body, f'<a href="{home}">All reports of this run</a>', style)


def of_markdown(text: str, home: str, to: str) -> str:
    """
    Give a text in Markdown as one page.

    Parameters
    ----------
    text : str
        Its first heading is the title.
    home, to : str
        Link from the page, and what it is called.

    Returns
    -------
    str
        HTML.
    """
    title = re.search(r"(?m)^# (.+)$", text)
    return _page(title[1] if title else to, _boxed(_markdown(text)), f'<a href="{home}">{html.escape(to)}</a>')


def front(title: str, body: str) -> str:
    """Give a page that leads to others, and from which nothing leads back."""
    return _page(title, body, "")


def _exporter() -> Any:
    from nbconvert import HTMLExporter

    options = {"exclude_input_prompt": True, "exclude_output_prompt": True, "raw_template": TEMPLATE}
    return HTMLExporter(filters={"markdown2html": _markdown}, **options)


def _markdown(source: str) -> str:
    """Markdown as HTML, its formulas as MathML."""
    from latex2mathml import converter
    from nbconvert.filters import markdown_mistune

    class Renderer(markdown_mistune.IPythonRenderer):
        def block_math(self, body: str) -> str:
            return _scroll(converter.convert(body, display="block"))

        def inline_math(self, body: str) -> str:
            return converter.convert(body)

    return markdown_mistune.MarkdownWithMath(Renderer(escape=False)).render(source)


def _keep_harmless(content: Any) -> None:
    """Leave of what the cells put out only what a page may show; Markdown becomes HTML on the way."""
    for output in (output for cell in content.cells for output in cell.get("outputs", []) if "data" in output):
        for kind in set(output.data) - set(SHOWN):
            del output.data[kind]
        if "text/markdown" in output.data:
            output.data.setdefault("text/html", _markdown(output.data.pop("text/markdown")))
        if "text/html" in output.data:
            output.data["text/html"] = harmless(output.data["text/html"])
    for cell in (cell for cell in content.cells if "outputs" in cell):
        cell.outputs = [output for output in cell.outputs if output.get("data", True)]


def harmless(content: str) -> str:
    """
    Let only `TAGS` stand in a piece of HTML, closed as they should be; of all others the text is shown.

    Examples
    --------
    >>> harmless("<b onclick='c()'>a<script>b")
    '<b>a&lt;script&gt;b</b>'
    """
    import bleach  # takes a moment to load, which a stage that is up to date need not wait for

    content = re.sub(r"<style( type=\"text/css\"| scoped)>[^<]*</style>", "", content)  # which pandas writes
    return bleach.clean(content, TAGS, _may_stay, {"http", "https", "mailto", "data"})


def _may_stay(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return value.startswith(SOUNDS_AND_IMAGES)
    return not value.strip().lower().startswith("data:") if name == "href" else name in ATTRIBUTES


def _carried(body: str) -> str:
    """Say of a page that it carries voices; nothing where it does not."""
    count = body.count("<audio")
    if not count:
        return ""
    holds = f"holds {count} recordings" if count > 1 else "holds a recording"
    return f'<p class="carries">This page {holds} of voices: whoever gets the page can hear them.</p>'


def without_places(page: str, given: Iterable[Any] = ()) -> str:
    """
    Tell of files by their names, and not where they lie on this machine.

    Parameters
    ----------
    page : str
        HTML, or a record in JSON.
    given : iterable
        Parameters of a run; those that are paths are told by their last part.
    """
    roots = {str(paths.outputs()): "outputs", str(paths.REPO): ".", str(paths.params_dir().parent): "."}
    roots |= {os.environ.get("SV_MIRROR", ""): "$SV_MIRROR", str(Path.home()): "~"}
    roots |= {one: Path(one).name for one in given if isinstance(one, str)}
    for place in sorted(filter(os.path.isabs, roots), key=len, reverse=True):
        if len(place) > 1:  # a root of / says nothing
            for form in {place, html.escape(place), html.escape(json.dumps(place)[1:-1])}:
                told = html.escape(roots[place]).replace("\\", "")
                page = re.sub(rf"(?<![\w+/.]){re.escape(form)}(?![\w-])", told, page)
    return page


def _name_figures(content: Any) -> None:
    """Give each figure the heading above it as the text for those who cannot see it."""
    heading = "figure"
    for cell in content.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"(?m)^#+ (.+)$", cell.source)):
            heading = f"figure: {found[1]}"
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.metadata.setdefault("image/png", {})["alt"] = heading


def write_index(profile: Profile, sources: Mapping[str, str] | None = None) -> None:
    """Write ``outputs/<profile>/index.html``: the pipeline as a picture, each report, parameters, results."""
    with replace_on_success(paths.profile_dir(profile.name) / "index.html") as temporary:
        temporary.write_text(index(profile, sources), "utf-8")


def index(profile: Profile, sources: Mapping[str, str] | None = None) -> str:
    """
    Give the index page of a profile, as far as its stages have run; `sources` as of `keys.stage_keys`.

    Returns
    -------
    str
        HTML with links to the reports, relative to ``outputs/<profile>/``.
    """
    known = keys.stage_keys(profile, sources)
    runs = {stage.name: records.read_run(profile.name, stage.name) for stage in profile.stages}
    states = {
        name: "open" if run is None else "done" if run["key"] == known[name] else "outdated"
        for name, run in runs.items()
    }
    file = profile.file
    parts = [f"<h1>{html.escape(profile.name)}</h1>", f"<p>{html.escape(summed_up(profile))}</p>"]
    parts += [_scroll(_pipeline(profile, runs, states)), *_results(profile.name, states)]
    parts += ["<h2>Stages</h2>", _scroll(_stages(runs, states))]
    parts += [
        "<h2>Parameters</h2>",
        f"<p>The experiment is one file, <code>params/{html.escape(file.name)}</code>; what it "
        "does not say is the default of the notebook.</p>",
    ]
    parts += [_folded("the file", file.read_text("utf-8"))]
    parts += [
        _folded(f"{name}, complete", json.dumps(run["parameters"], indent=1)) for name, run in runs.items() if run
    ]
    parts += _made_by([run for run in runs.values() if run])
    given = [value for run in runs.values() if run for value in run["parameters"].values()]
    return _page(f"{profile.name}: reports", without_places("\n".join(parts), given), "Speaker verification")


def _results(profile: str, states: dict[str, str]) -> list[str]:
    if states[LAST[-1]] == "open" or not (paths.profile_dir(profile) / "results.csv").exists():
        return ["<h2>Results</h2>", "<p>They come when every model has been judged.</p>"]
    from sv_utils.reports import tables

    notes = [f"<p>{html.escape(said)}</p>" for said in (tables.session_note(profile), reproduced(profile)) if said]
    if states[LAST[-1]] == "outdated":
        notes.append("<p>These are of the run before: something that they come from has changed since.</p>")
    links = '<p>More in the <a href="report.html">report</a>; as numbers in <a href="results.csv">results.csv</a>.</p>'
    return ["<h2>Results</h2>", *notes, results_table(profile), links]


def summed_up(profile: Profile) -> str:
    """What a profile is, in the words of the first line of its params file; '' where that says nothing."""
    first = profile.file.read_text("utf-8").partition("\n")[0]
    said = first.removeprefix("#").strip().removeprefix(f"{profile.name} - ") if first.startswith("#") else ""
    return said[:1].upper() + said[1:]


def results_table(profile: str, brief: bool = False) -> str:
    """The results of a profile, with the mean over seeds where there are several, as HTML; `brief`: cosines' EERs."""
    from sv_utils.reports import tables

    results = tables.read_results(profile)
    shown = [tables.over_seeds(results), tables.summary(results)]
    if brief:
        shown = [tables.brief(results)]
    return "\n".join(_boxed(table.to_html(index=False, border=0)) for table in shown if len(table))


def reproduced(profile: str) -> str:
    """The verdict whether a profile's results are as expected, in words; '' where none was given."""
    file = paths.profile_dir(profile) / "reproduction.json"
    return json.loads(file.read_text("utf-8"))["sentence"] if file.exists() else ""


def _stages(runs: dict[str, dict | None], states: dict[str, str]) -> str:
    rows = ["<tr><th>stage<th>state<th>ended (UTC)<th>took<th>content key<th>record</tr>"]
    for name, run in runs.items():
        cells = [html.escape(name), SUMMARY[states[name]], "", "", "", ""]
        if run:
            cells[0] = f'<a href="{_link(name)}.html">{cells[0]}</a>'
            cells[2:4] = [run["end"][:16].replace("T", " "), _duration(run["seconds"])]
            cells[4:6] = [f"<code>{run['key'][:12]}</code>", f'<a href="{html.escape(name)}/run.json">run.json</a>']
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _made_by(runs: list[dict]) -> list[str]:
    """Where the last of the runs took place, and with what."""
    if not runs:
        return []
    last = max(runs, key=lambda run: run["end"])
    git = last["git"] or {"commit": "not under git", "dirty": False}
    facts = {
        "commit": git["commit"] + (" with changes" if git["dirty"] else ""),
        "machine": f"{last['processor']}; cores: {last['cores']}; {last['memory'] / 2**30:.0f} GiB",
        "GPU": "; ".join(last["gpus"]) or "none",
        "digits": f"instruction sets {last.get('instructions') or 'not recorded'}, {last.get('threads', '?')} threads",
        "system": f"{last['platform']}, Python {last['python']}",
    }
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in facts.items())
    packages = "\n".join(f"{name} {version}" for name, version in last["packages"].items())
    text = f"<p>Of the last stage that ran ({html.escape(last['stage'])}); every stage has its own in its record.</p>"
    return ["<h2>What made these numbers</h2>", text, _scroll(f"<table>{rows}</table>"), _folded("packages", packages)]


BOX, GAP, HEIGHT, STEP = 176, 26, 46, 62  # of the picture's boxes [px]


def _pipeline(profile: Profile, runs: dict[str, dict | None], states: dict[str, str]) -> str:
    """The stages as boxes, a column a kind and a row a model, with a line from each to what reads its results."""
    steps, models = profile.stages, list(profile.models)
    places = {stage.name: _place(stage, steps, models) for stage in steps}
    lines, boxes = [], []
    for stage in steps:
        x, y = places[stage.name]
        for upstream in stage.upstream:
            left, top = places[upstream]
            start, end = left + BOX, x
            middle = end - GAP / 2
            lines.append(
                f"<path d='M{start} {top} H{middle - 8} C{middle} {top} {middle} {y} {middle + 8} {y} H{end}'/>"
            )
        boxes.append(_box(stage, x, y, runs[stage.name], states[stage.name]))
    width = max(x for x, _ in places.values()) + BOX + 2
    height = max(y for _, y in places.values()) + HEIGHT / 2 + 2
    label = (
        f"The pipeline of {html.escape(profile.name)}: {sum(map(bool, runs.values()))} of {len(steps)} stages have run"
    )
    head = f'<svg class="pipeline" viewBox="0 0 {width} {height}" role="group" aria-label="{label}">'
    return f"{head}{''.join(lines)}{''.join(boxes)}</svg>"


def _place(stage: Stage, steps: tuple[Stage, ...], models: list[str]) -> tuple[float, float]:
    """Left edge and middle of a stage's box."""
    extra = [step.name for step in steps if step.name in EXTRA]
    order = [*FIRST, "training", *LAST, *extra]
    training = TRAINING.fullmatch(stage.name)
    column = order.index("training" if training else stage.notebook)
    model = training["model"] if training else stage.name.partition("@")[2]
    row = models.index(model) if model in models else (len(models) - 1) / 2
    return 2 + column * (BOX + GAP), HEIGHT / 2 + 2 + row * STEP


def _box(stage: Stage, x: float, y: float, run: dict | None, state: str) -> str:
    name = re.sub(r"^\d\d_", "", stage.name).replace("_", " ", 1).replace("evaluate@", "evaluate ")
    short = name if len(name) < 21 else f"{name[:19]}…"
    said = f"{_duration(run['seconds'])}, {SUMMARY[state]}" if run else SUMMARY[state]
    drawn = f"<title>{html.escape(stage.name)}</title>"
    drawn += f"<rect x='{x}' y='{y - HEIGHT / 2}' width='{BOX}' height='{HEIGHT}' rx='8'/>"
    drawn += f"<text x='{x + 12}' y='{y - 4}'>{html.escape(short)}</text>"
    drawn += f"<text x='{x + 12}' y='{y + 14}' class='state'>{said}</text>"
    return f"<g class='{state}'>" + (f'<a href="{_link(stage.name)}.html">{drawn}</a>' if run else drawn) + "</g>"


def _link(stage: str) -> str:
    return html.escape(f"{stage}/{stage}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _scroll(content: str) -> str:
    return f'<div class="scroll" tabindex="0">{content}</div>'


def _boxed(content: str) -> str:
    """Let each table scroll within a box of its own, keep intervals on one line, and let long names break."""
    content = content.replace("<table", '<div class="scroll" tabindex="0"><table').replace("</table>", "</table></div>")
    content = re.sub(r"(<th[^>]*>[^<]*?\w)([(_])", r"\1<wbr>\2", content)
    content = re.sub(r"<td>[^<]*[_@][^<]*</td>", lambda cell: re.sub(r"([_@])", r"\1<wbr>", cell[0]), content)
    content = re.sub(r"(<td>[^<]*?(?:<wbr>[^<]*?)*)(AS-norm)", r'\1<span class="whole">\2</span>', content)
    content = re.sub(r", n = (\d+)<", r", n&nbsp;=&nbsp;\1<", content)
    return re.sub(r"(>[-+]?[\d.]+) (\[[-+]?[\d.]+,) ([-+]?[\d.]+\][<,])", r"\1&nbsp;\2&nbsp;\3", content)


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def _page(title: str, body: str, navigation: str, style: str = "") -> str:
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += '<meta name="referrer" content="no-referrer">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}{style}</style>'
    body = f"<body><nav>{navigation}</nav><main>{body}</main></body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'
