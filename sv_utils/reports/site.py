"""
A site of finished runs: one folder of pages that needs no network, no server and no script.

It holds a front page, and of each profile its index, its report, the page of each stage, the cards of its models, and
the records; beside them the READMEs of the folders as pages.
"""

import base64
import html
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import card, pages

READMES = "read"  # folder of the site
KEPT = ("*.html", "results.csv", "reproduction.json", "run.json")


def build(folder: Path, profiles: Sequence[str]) -> str:
    """
    Gather the pages of finished profiles.

    Parameters
    ----------
    folder : Path
        Of the site; made anew. One that holds anything but a site is left alone.
    profiles : sequence of str

    Returns
    -------
    str
        Where it is, how many pages it has and how large it is.

    Raises
    ------
    RequestError
        If a profile is not finished, or the folder is none of a site.
    """
    asked = [Profile.read(name) for name in profiles]
    for profile in asked:
        if not (paths.profile_dir(profile.name) / "report.html").exists():
            raise RequestError(f"{profile.name} has no report yet; make it with: make reproduce PROFILE={profile.name}")
    if folder.exists() and any(folder.iterdir()) and not (folder / ".site").exists():
        raise RequestError(f"{folder} holds other things than a site; name an empty folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _fill(temporary, asked)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = list(folder.rglob("*.html"))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{folder / 'index.html'}: {len(found)} pages, {size / 2**20:.0f} MiB"


def _fill(folder: Path, profiles: list[Profile]) -> None:
    folder.mkdir(parents=True)
    (folder / ".site").touch()
    (folder / ".nojekyll").touch()  # GitHub Pages: serve the files as they are
    cards = {profile.name: _copy(profile, folder / profile.name) for profile in profiles}
    readmes = _write_readmes(folder / READMES)
    (folder / "index.html").write_text(_front(profiles, cards, readmes), "utf-8")


def _copy(profile: Profile, target: Path) -> dict[str, str]:
    """Copy the pages of a profile, and write the cards of its models; model to the link to its card."""
    source = paths.profile_dir(profile.name)
    for pattern in KEPT:
        for file in (*source.glob(pattern), *source.glob(f"*/{pattern}")):
            if "partial" not in file.name:
                (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / file.relative_to(source))
                if file.name == "run.json":
                    _tell_no_places(target / file.relative_to(source))
    cards = {}
    for model, stage in profile.models.items():
        file = source / stage / "model.keras"
        if stage and file.exists():
            page = pages.of_markdown(card.of_model(file), "../index.html", "All reports of this run")
            (target / stage / "card.html").write_text(page, "utf-8")
            cards[model] = f"{profile.name}/{stage}/card.html"
    _lead_home(target / "index.html")
    return cards


def _tell_no_places(record: Path) -> None:
    """Take out of the copy of a record where files lie on this machine: a site is for others."""
    text = record.read_text("utf-8")
    record.write_text(pages.without_places(text, json.loads(text)["parameters"].values()), "utf-8")


def _lead_home(index: Path) -> None:
    """Let the index of a profile lead to the front page of the site."""
    text = index.read_text("utf-8")
    index.write_text(text.replace("<nav>Speaker verification</nav>", '<nav><a href="../index.html">All runs</a></nav>'))


def _write_readmes(folder: Path) -> dict[str, str]:
    """Write each README as a page; title to its link."""
    files = {_page_name(file): file for file in [paths.REPO / "README.md", *_readmes()]}
    folder.mkdir()
    links = {}
    for name, file in files.items():
        text = file.read_text("utf-8")
        (folder / name).write_text(
            pages.of_markdown(_linked(text, file, files), "../index.html", "Front page"), "utf-8"
        )
        title = re.search(r"(?m)^# (.+)$", text)
        links[title[1].replace("`", "") if title else name] = f"{READMES}/{name}"
    return links


def _readmes() -> list[Path]:
    named = sorted(
        file
        for top in ("notebooks", "params", "sv_utils")
        for file in (paths.REPO / top).rglob("*.md")
        if file.name == "README.md"
    )
    return [*named, paths.REPO / "CONTRIBUTING.md"]


def _page_name(file: Path) -> str:
    parts = file.relative_to(paths.REPO).with_suffix("").parts
    return f"{'-'.join(parts[:-1] if parts[-1] == 'README' and len(parts) > 1 else parts)}.html"


def _linked(text: str, file: Path, files: dict[str, Path]) -> str:
    """Lead links to pages of the site; what is only in the repository keeps its name and loses its link."""
    known = {path.resolve(): name for name, path in files.items()}

    def link(found: re.Match) -> str:
        target, _, anchor = found[2].partition("#")
        if re.match(r"[a-z]+:", found[2]) or not target:
            return found[0]
        path = (file.parent / target).resolve()
        name = known.get(path / "README.md") or known.get(path)
        return f"[{found[1]}]({name}{'#' * bool(anchor)}{anchor})" if name else found[1]

    text = re.sub(
        r"\[!\[([^\]]*)\]\(([^)]*)\)\]\([^)]*\)", lambda found: _picture(file.parent / found[2], found[1]), text
    )
    return re.sub(r"\[([^\[\]]+)\]\(([^)\s]+)\)", link, text)


def _picture(file: Path, said: str) -> str:
    """A picture that lies within the page itself, as all that a page shows."""
    content = base64.b64encode(file.read_bytes()).decode()
    return f'<img src="data:image/{file.suffix[1:]};base64,{content}" alt="{html.escape(said)}">'


def _front(profiles: list[Profile], cards: dict[str, dict[str, str]], readmes: dict[str, str]) -> str:
    parts = ["<h1>Speaker verification, reproducible end to end</h1>"]
    parts.append(
        "<p>Finished runs, each with its results, the verdict whether they are as expected, and every report.</p>"
    )
    for profile in profiles:
        parts += _run(profile, cards[profile.name])
    listed = "".join(f'<li><a href="{link}">{html.escape(title)}</a></li>' for title, link in readmes.items())
    parts.append(f"<h2>How it works</h2><ul>{listed}</ul>")
    return pages.front("Speaker verification: finished runs", "\n".join(parts))


def _run(profile: Profile, cards: dict[str, str]) -> list[str]:
    verdict = pages.reproduced(profile.name)
    name = html.escape(profile.name)
    links = [f'<a href="{name}/index.html">all stages</a>', f'<a href="{name}/report.html">the report</a>']
    links += [f'<a href="{link}">card of {html.escape(model)}</a>' for model, link in cards.items()]
    parts = [f"<h2>{name}</h2>", f"<p>{html.escape(pages.summed_up(profile))}</p>"]
    parts += [f"<p>{html.escape(verdict)}</p>"] if verdict else []
    return [*parts, pages.results_table(profile.name, brief=True), f"<p>{', '.join(links)}</p>"]
