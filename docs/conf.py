"""How the documentation becomes a site: `make docs`."""

from __future__ import annotations

from xcli import __version__

project = "xception"
release = __version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"xception {__version__}"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
nitpicky = True
# It would turn the two dashes of an option into one.
smartquotes = False
