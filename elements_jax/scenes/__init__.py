"""Pictures whose edits have a known true result: drawn scenes, and objects cut out of photographs."""
