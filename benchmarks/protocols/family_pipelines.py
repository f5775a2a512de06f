"""Feature sets under one head, by name; and those that cannot run here, with the reason."""

import argparse

import run_all

#: What `run_all` takes as options and the studies do not.
SETTLED = {"encoder": "mobilenetv2_0.35", "input_size": 128, "heads": ["xgboost"]}

__all__ = ["SETTLED", "family_pipelines", "not_run_notice"]


def family_pipelines(options):
    """Give (name, pipeline) for ``options.features``: those that can run, and the reasons of those that cannot.

    Returns
    -------
    pipelines : dict of str to IDCPipeline
    not_run : dict of str to str
    """
    import numpy as np

    from histofeat.exceptions import MissingExtraError, WeightsError
    from histofeat.features import extract

    recipe = argparse.Namespace(**{**vars(options), **SETTLED})
    run_all.check_names(recipe)
    pipelines, not_run = dict(run_all.make_pipelines(recipe)), {}
    gray = np.full((1, 50, 50, 3), 128, dtype=np.uint8)
    for name in list(pipelines):
        try:
            extract(pipelines[name].families(), gray)
        except (WeightsError, MissingExtraError) as error:
            not_run[name] = str(error)
            del pipelines[name]
    if not pipelines:
        name, reason = next(iter(not_run.items()))
        raise ValueError(f"--features: expected a set that can run, got none: {name}: {reason}")
    return pipelines, not_run


def not_run_notice(not_run):
    """Blocks that name what could not run; none where all could."""
    from histofeat.reporting import Notice

    if not not_run:
        return ()
    return (Notice("warning", "Not run", tuple(f"{name}: {reason}" for name, reason in not_run.items())),)
