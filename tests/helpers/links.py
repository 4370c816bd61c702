"""Links of pages, followed on disk."""

import re
from pathlib import Path
from urllib.parse import unquote


def dead(folder: Path) -> list[str]:
    """Links of the pages in a folder that lead nowhere, or out of it."""
    found = []
    for page in folder.rglob("*.html"):
        for link in re.findall(r"""href=["']([^"']+)""", page.read_text("utf-8")):
            target = (page.parent / unquote(link.partition("#")[0])).resolve()
            if link.startswith(("#", "data:", "http://", "https://", "mailto:")):
                continue
            if not target.is_file() or not target.is_relative_to(folder.resolve()):
                found.append(f"{page.relative_to(folder)}: {link}")
    return found
