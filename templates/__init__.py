"""The texts that vs-tools writes (jinja2); a package so that they are installed with the code."""
