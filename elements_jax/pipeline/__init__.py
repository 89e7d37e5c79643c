"""The pipeline: encode, edit and decode, for one picture, a session or a batch."""
