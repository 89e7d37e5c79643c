"""The web editor: a page, and the HTTP API used by the page and by programs, only on this machine."""
