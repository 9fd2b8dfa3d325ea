"""The DeepProfile network: training, models on disk, prediction."""
