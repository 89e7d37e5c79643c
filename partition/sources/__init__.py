"""Sources of photographs: folders, tar and Parquet files, TensorFlow Datasets."""
