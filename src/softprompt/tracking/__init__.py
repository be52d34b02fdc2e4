"""A run is followed by trackers: TensorBoard, trackio, wandb, MLflow, and others (docs/tracking.md).

This package receives plain values. It knows no models, no methods and no rows.
"""
