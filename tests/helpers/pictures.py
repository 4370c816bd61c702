"""The pictures of the README, taken in Chromium: ``python tests/helpers/pictures.py PROFILE`` (``make pictures``)."""

import io
import os
import sys

from browser import chromium
from PIL import Image

from sv_utils import demo
from sv_utils.base import gate, paths

FOLDER = paths.NOTEBOOKS / "pictures"
SIZE = {"width": 1080, "height": 760}


def take(page, name: str, height: int) -> None:
    """Write the top of a page as a picture [height in px]."""
    page.evaluate("document.fonts.ready")
    FOLDER.mkdir(exist_ok=True)
    clip = {"x": 0, "y": 0, "width": SIZE["width"], "height": height}
    taken = Image.open(io.BytesIO(page.screenshot(clip=clip, full_page=True, animations="disabled")))
    with paths.replace_on_success(FOLDER / f"{name}.webp") as temporary:
        taken.save(temporary, quality=85, method=6)
    print(f"{FOLDER / name}.webp: {(FOLDER / f'{name}.webp').stat().st_size / 1024:.0f} kB")


def main(profile: str) -> None:
    """Take the index of a profile, and the page for visitors after an example."""
    with gate.private_folder("sv_utils_page") as home, chromium() as browser:
        os.environ["GRADIO_TEMP_DIR"] = str(home)
        view = browser.new_page(viewport=SIZE, color_scheme="light")
        view.goto((paths.profile_dir(profile) / "index.html").as_uri())
        take(view, "index", 760)
        site = demo.build(demo.example_files(home / "examples"))
        view.goto(demo.launch(site, home))
        view.get_by_role("button", name="Try: two voices").click()
        view.locator("#answer h2").wait_for(timeout=120_000)
        view.locator("#answer summary").wait_for()
        view.wait_for_timeout(1500)  # the players draw their waveforms
        take(view, "demo", 1200)
        site.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
