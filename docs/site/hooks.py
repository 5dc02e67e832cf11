"""Links of the pages: to files of the repository that are no pages, at the repository."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = "https://github.com/gst-plugin-nnv/gst-plugin-nnv/blob/main/"
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_page_markdown(markdown, page, config, files):
    folder = pathlib.PurePosixPath(page.file.src_uri).parent

    def link(match):
        before, target, after = match.groups()
        if re.match(r"[a-z]+:", target):
            return match.group(0)
        path = ROOT / folder / target
        try:
            inside = path.resolve().relative_to(ROOT)
        except ValueError:
            return match.group(0)
        # Pages and what is copied beside them are MkDocs's to check.
        if files.get_file_from_path(inside.as_posix()) or not path.exists():
            return match.group(0)
        return f"{before}{SOURCE}{inside.as_posix()}{after}"

    return LINK.sub(link, markdown)
