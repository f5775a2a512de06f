"""Prediction for a person: images of any size in any number, with a saved model, as a table."""

from histofeat.datasets.folders.patients import find_patients
from histofeat.datasets.listing import ImageList, list_images
from histofeat.models.prediction.predict import predict_images
from histofeat.models.prediction.records import ImagePredictions, write_table

__all__ = ["ImageList", "ImagePredictions", "find_patients", "list_images", "predict_images", "write_table"]
