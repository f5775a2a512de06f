"""Features on disk: what a row is known by (`keys`), the file (`session`), the store (`feature_store`)."""

from histofeat.features.store.feature_store import FeatureStore, StoredExtractor, as_store
from histofeat.features.store.session import (
    FEATURES_VERSION,
    Session,
    content_key,
    extractor_fingerprint,
    extractor_name,
)

__all__ = [
    "FEATURES_VERSION",
    "FeatureStore",
    "Session",
    "StoredExtractor",
    "as_store",
    "content_key",
    "extractor_fingerprint",
    "extractor_name",
]
