"""Write scores as one CSV row per metric, predictions as one Parquet row per model, patch and class."""

import csv

import numpy as np

from histofeat.metrics import LABEL_METRICS
from histofeat.reporting._payload import model_key, portable_paths


def score_rows(payload):
    """Yield one dict per model, metric and kind of threshold.

    Parameters
    ----------
    payload : dict
        As `metrics_payload` returns it.

    Yields
    ------
    dict
        ``dataset, synthetic, name, head, n_features, metric, threshold`` ("none", "0.5" or "tuned"; "argmax" with more
        than two classes), ``value, pooled, mean, std, ci95_low, ci95_high, method_low, method_high, fold_1 ...``; an
        undefined number is empty.
    """
    source = {"dataset": payload["dataset"]["name"], "synthetic": payload["dataset"]["synthetic"]}
    for result in payload["results"]:
        two = len(result["labels"]) == 2
        model = {key: result[key] for key in ("name", "head", "n_features")}
        for scores, kind in [(result, "0.5"), (result["tuned"], "tuned")] if two else [(result, "argmax")]:
            for metric, score in scores.items():
                if isinstance(score, dict) and "pooled" in score:
                    yield {
                        **source,
                        **model,
                        "metric": metric,
                        "threshold": kind if metric in LABEL_METRICS else "none",
                        **{part: score[part] for part in ("value", "pooled", "mean", "std")},
                        **dict(zip(("ci95_low", "ci95_high"), score["ci95"], strict=True)),
                        **dict(zip(("method_low", "method_high"), score["method_ci95"], strict=True)),
                        **{f"fold_{number}": value for number, value in enumerate(score["folds"], start=1)},
                    }


def write_scores(payload, path):
    """Write `score_rows` as CSV; a report without a model has the header only."""
    columns = ["dataset", "synthetic", "name", "head", "n_features", "metric", "threshold"]
    columns += ["value", "pooled", "mean", "std", "ci95_low", "ci95_high", "method_low", "method_high"]
    columns += [f"fold_{number}" for number in range(1, len(payload["folds"]) + 1)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(score_rows(payload))


def predictions_table(evaluation, model):
    """Return every out-of-fold score of one model, in long form.

    Parameters
    ----------
    evaluation : Evaluation
    model : ModelResult

    Returns
    -------
    pyarrow.Table
        Columns ``model`` ("name/head"), ``patient``, ``path`` (relative to the data root), ``fold`` (from 1), ``label``
        (the true class), ``class`` and ``score`` (the probability of that class, float64): one row per tested patch
        and class, patches in the order of the data set.
    """
    import pyarrow as pa

    dataset = evaluation.dataset
    rows = np.flatnonzero(evaluation.tested)
    k = len(dataset.target_names)
    names = pa.array([str(name) for name in dataset.target_names])
    patches = np.repeat(np.arange(len(rows), dtype=np.int32), k)
    paths = pa.array(np.asarray(portable_paths(dataset), dtype=object)[rows].tolist(), pa.string())
    people, person = np.unique(np.asarray(dataset.patients, dtype=str)[rows], return_inverse=True)
    columns = {
        "model": _coded(np.zeros(len(patches)), pa.array([model_key(model.name, model.head)])),
        "patient": _coded(person.ravel()[patches], pa.array(people.tolist(), pa.string())),
        "path": _coded(patches, paths),
        "fold": pa.array(evaluation.fold[rows][patches] + 1, pa.int16()),
        "label": _coded(np.asarray(dataset.y)[rows][patches], names),
        "class": _coded(np.tile(np.arange(k), len(rows)), names),
        "score": pa.array(model.proba[rows].ravel(), pa.float64()),
    }
    return pa.table(columns)


def _coded(codes, words):
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), words)


def write_predictions(evaluation, path):
    """Write the predictions of all models to one Parquet file, one row group per model.

    Notes
    -----
    Scores keep float64, so that the labels at a threshold come out again exactly; splitting the bytes of the numbers
    before zstd keeps that small.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = pa.dictionary(pa.int32(), pa.string())
    types = {"model": words, "patient": words, "path": words, "fold": pa.int16(), "label": words, "class": words}
    synthetic = str(bool(evaluation.dataset.synthetic)).lower()
    schema = pa.schema(
        {**types, "score": pa.float64()}, metadata={"dataset": evaluation.dataset.name, "synthetic": synthetic}
    )
    packing = {"use_dictionary": list(types), "column_encoding": {"score": "BYTE_STREAM_SPLIT"}}
    with pq.ParquetWriter(path, schema, compression="zstd", **packing) as writer:
        for model in evaluation.models:
            table = predictions_table(evaluation, model).cast(schema)
            writer.write_table(table, row_group_size=max(len(table), 1))
