"""Images whose edits have a known true result: drawn scenes, and photographs with pasted objects."""
