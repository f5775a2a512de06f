"""Prediction for a person: images of any size in any number, with a saved model, as a table."""
