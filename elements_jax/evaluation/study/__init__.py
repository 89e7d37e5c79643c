"""The user study: a two-alternative forced choice between our edits and others' (Section 4.2, Figures 9, 11)."""
