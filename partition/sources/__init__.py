"""Where photographs come from: folders, tars, TensorFlow Datasets."""
