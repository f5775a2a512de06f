"""Pretrained networks: what each is (`records`), where its weights are (`weights`), what runs it (`engines`)."""

from histofeat.networks.pretrained.catalogue import find_encoder, find_weights
from histofeat.networks.pretrained.engines import EngineChoice, bfloat16_supported, choose_engine, load_engine
from histofeat.networks.pretrained.records import ENCODERS, Encoder
from histofeat.networks.pretrained.timm_records import TIMM_ENCODERS, TimmEncoder
from histofeat.networks.pretrained.weights import hash_weights

__all__ = [
    "ENCODERS",
    "TIMM_ENCODERS",
    "Encoder",
    "EngineChoice",
    "TimmEncoder",
    "bfloat16_supported",
    "choose_engine",
    "find_encoder",
    "find_weights",
    "hash_weights",
    "load_engine",
]
