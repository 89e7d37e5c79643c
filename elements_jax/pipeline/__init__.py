"""The pipeline: encode, edit and decode, for one image, a session or a batch."""
