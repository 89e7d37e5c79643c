"""The web editor: one page, and the HTTP API that it and programs use, on this machine alone."""
