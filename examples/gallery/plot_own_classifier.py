"""
A classifier of your own beside the baselines
=============================================

Any classifier of scikit-learn, and the predictions of any other system, stand in the same table: same folds of
patients, same resamples, one family of comparisons.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.reporting import RocDisplay

cohort = make_cohort(n_patients=20, patches_per_patient=16, random_state=0)

# %%
# The classifier gets paths of images. Its first step turns them into numbers of your own; here, quantiles of each
# channel.


def channel_quantiles(paths):
    """Give nine numbers for each image: the lower, middle and upper tenth of red, green and blue."""
    images = [plt.imread(path)[..., :3].reshape(-1, 3) for path in paths]
    return np.array([np.quantile(image, [0.1, 0.5, 0.9], axis=0).ravel() for image in images])


own = make_pipeline(FunctionTransformer(channel_quantiles), ExtraTreesClassifier(200, random_state=0))
pipelines = {"own trees": own, "texture": IDCPipeline(features="lbp", head="logistic")}
evaluation = evaluate(cohort, pipelines, PatientKFold(4), n_resamples=300)

# %%
# A network that you trained elsewhere, on the same folds, joins with its predictions, a row for each patch. This one
# is made up.

rng = np.random.default_rng(0)
network = np.clip(0.35 + 0.3 * cohort.y + rng.normal(0, 0.25, len(cohort.y)), 0.01, 0.99)
evaluation = evaluation.add_predictions("network", network)
table = evaluation.to_frame()
print(table[["name", "head", "roc_auc", "roc_auc_low", "roc_auc_high"]].round(2).to_string(index=False))

# %%

RocDisplay.from_evaluation(evaluation)
plt.show()
