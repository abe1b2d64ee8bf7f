"""jinja2: data -> text. A name that a template uses and nobody gave is an error, never an empty string."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent
_FOLDERS = (_HERE / "templates", _HERE.parent / "templates")  # installed; in a checkout


def render(template: str, **values: object) -> str:
    """The text of ``templates/<template>.j2``."""
    return _environment().get_template(f"{template}.j2").render(**values)


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(  # noqa: S701 - configuration files, not HTML
        loader=jinja2.FileSystemLoader(_FOLDERS), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )


def data_file(name: str) -> Path:
    """A file that is used as it stands, from the same folder."""
    return next(folder / name for folder in _FOLDERS if (folder / name).exists())
