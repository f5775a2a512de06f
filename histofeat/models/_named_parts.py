"""Pipelines whose features, head and normaliser are names or estimators, all with nested parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from sklearn.base import BaseEstimator, clone

from histofeat.exceptions import check_name, check_that, known_names
from histofeat.features import FAMILIES, PatchFeatures, as_family, make_family
from histofeat.images import NORMALIZERS, StainNormalizer, make_normalizer
from histofeat.models._feature_head import FeatureHead
from histofeat.models._heads import HEADS, make_head
from histofeat.models._pixel_head import PIXELS, PixelHead, is_estimator, takes_images


class NamedParts(BaseEstimator):
    """Estimator whose ``features``, ``head`` and ``normalizer`` are names or estimators, with nested parameters.

    In scikit-learn only estimators have nested parameters. Here a name such as ``head="xgboost"`` has them too: they
    are kept in ``head_params``, ``feature_params`` and ``normalizer_params``, plain mappings that `clone` copies.
    """

    feature_params: Mapping[str, Any] | None

    @property
    def takes_pixels(self) -> bool:
        """Whether the head gets the patches themselves: ``features="pixels"``."""
        return isinstance(self.features, str) and self.features == PIXELS

    def families(self) -> tuple[PatchFeatures, ...]:
        """Build the feature families that this pipeline names.

        Returns
        -------
        families : tuple of PatchFeatures
            Unfitted; given estimators are cloned. Empty with ``features="pixels"``.

        Raises
        ------
        ValueError
            If a name or a parameter is unknown, or there is no family.
        """
        params = self._params_by_family()
        built = []
        for entry in [] if self.takes_pixels else as_sequence(self.features):
            if entry == PIXELS:
                raise ValueError(
                    f"IDCPipeline.features: expected 'pixels' alone, got {self.features!r}. A head takes either pixels "
                    "or features; compare two pipelines."
                )
            if isinstance(entry, str):
                built.append(make_family(entry, **params.pop(entry, {})))
            elif isinstance(entry, PatchFeatures):
                built.append(clone(entry))
            else:
                raise ValueError(
                    f"IDCPipeline.features: expected names of feature families or estimators of histofeat.features, "
                    f"got {entry!r:.80}. {known_names(entry, FAMILIES)}"
                )
        if params:
            raise ValueError(
                f"IDCPipeline.feature_params: expected parameters of the named families {self.features!r}, got some of "
                f"{sorted(params)}. {known_names(sorted(params)[0], self._named_families())}"
            )
        return tuple(built)

    def make_head(self) -> FeatureHead | PixelHead:
        """Build the head that this pipeline names.

        Returns
        -------
        head : FeatureHead or PixelHead
            Unfitted; a given estimator is cloned. A `PixelHead` with ``features="pixels"``.

        Raises
        ------
        ValueError
            If the name or a parameter is unknown, or the estimator is no classifier on features (or on images, with
            ``features="pixels"``).
        """
        if self.takes_pixels:
            return self._make_pixel_head()
        if isinstance(self.head, str):
            return make_head(
                self.head,
                class_weight=self.class_weight,
                random_state=self.random_state,
                n_jobs=self.n_jobs,
                params=self.head_params,
                families=self.families() if self.head in HEADS and HEADS[self.head].by_family else (),
            )
        if not is_estimator(self.head):
            raise ValueError(
                f"IDCPipeline.head: expected a name or a scikit-learn classifier, got {self.head!r:.80}. "
                f"{known_names(self.head, HEADS)}"
            )
        self._check_no_params("head")
        if isinstance(self.head, FeatureHead):
            return clone(self.head)
        if takes_images(self.head):
            raise ValueError(
                f"IDCPipeline.head: expected a classifier on features, got {type(self.head).__name__}, which takes "
                "images. Set features='pixels'."
            )
        calibrate = not hasattr(self.head, "predict_proba")
        return FeatureHead(clone(self.head), calibrate=calibrate, class_weight=self.class_weight)

    def _make_pixel_head(self) -> PixelHead:
        if isinstance(self.head, str):
            classifier = _named_network(self.head, self.head_params, self.n_jobs, self.random_state)
            return PixelHead(classifier, class_weight=self.class_weight)
        if not takes_images(self.head):
            raise ValueError(_no_pixel_head(self.head))
        self._check_no_params("head")
        if isinstance(self.head, PixelHead):
            return clone(self.head)
        return PixelHead(clone(self.head), class_weight=self.class_weight)

    def make_normalizer(self) -> StainNormalizer | None:
        """Build the stain normaliser that this pipeline names.

        Returns
        -------
        normalizer : StainNormalizer or None
            Unfitted; a given estimator is cloned. None if patches are not normalised.

        Raises
        ------
        ValueError
            If the name or a parameter is unknown, or the estimator is no stain normaliser.
        """
        if isinstance(self.normalizer, str):
            return make_normalizer(self.normalizer, **{"n_jobs": self.n_jobs, **(self.normalizer_params or {})})
        if self.normalizer is not None and not isinstance(self.normalizer, StainNormalizer):
            raise ValueError(
                f"IDCPipeline.normalizer: expected None, a name or an estimator of histofeat.images, "
                f"got {self.normalizer!r:.80}. {known_names(self.normalizer, NORMALIZERS)}"
            )
        self._check_no_params("normalizer")
        return None if self.normalizer is None else clone(self.normalizer)

    def _check_no_params(self, part: str) -> None:
        """Refuse parameters of a named head or normaliser where there is no name."""
        params = getattr(self, f"{part}_params")
        if params:
            raise ValueError(
                f"IDCPipeline.{part}_params: expected None with {part}={getattr(self, part)!r:.40}, got "
                f"{sorted(params)}. Give a name, or set the parameters on the estimator."
            )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` also those of the head, of each family and of the normaliser."""
        params = super().get_params(deep=False)
        if not deep:
            return params
        normalizer, head = self.make_normalizer(), self.make_head()
        parts = {} if normalizer is None else {"normalizer": normalizer}
        parts["head"] = head if isinstance(self.head, FeatureHead | PixelHead) else head.classifier
        parts |= {f"features__{family.family}": family for family in self.families()}
        for part, estimator in parts.items():
            params |= {f"{part}__{name}": value for name, value in estimator.get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters: first those of the pipeline, then nested ones.

        Raises
        ------
        ValueError
            If a parameter is unknown to the pipeline, the head, the family or the normaliser; the message gives the
            nearest name. Nothing is changed then.
        """
        before = super().get_params(deep=False)
        try:
            self._set_own({name: value for name, value in params.items() if "__" not in name})
            for name, value in params.items():
                if "__" in name:
                    self._set_nested(name, value)
        except ValueError:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def _set_own(self, own: Mapping) -> None:
        known = self._get_param_names()
        for name, value in own.items():
            check_name(f"IDCPipeline.{name}", name, known, "a parameter")
            if name in ("head", "normalizer") and f"{name}_params" not in own:
                before = getattr(self, name)
                if not (value is before or (isinstance(value, str) and value == before)):
                    setattr(self, f"{name}_params", None)
            setattr(self, name, value)
        if "features" in own and "feature_params" not in own and self.feature_params:
            kept = self._named_families()
            params = {key: value for key, value in self.feature_params.items() if key.partition("__")[0] in kept}
            self.feature_params = params or None

    def _set_nested(self, name: str, value) -> None:
        part, _, rest = name.partition("__")
        if part == "features":
            self._set_family(rest, value)
        elif part not in ("head", "normalizer"):
            raise ValueError(
                f"IDCPipeline.{name}: expected head__<parameter>, features__<family>__<parameter> or "
                f"normalizer__<parameter>. {known_names(part, ('head', 'features', 'normalizer'))}"
            )
        elif isinstance(getattr(self, part), str):
            setattr(self, f"{part}_params", {**(getattr(self, f"{part}_params") or {}), rest: value})
            self.make_head() if part == "head" else self.make_normalizer()
        elif getattr(self, part) is None:
            raise ValueError(
                f"normalizer__{rest}: expected a pipeline with a normaliser, got normalizer=None. "
                f"Set normalizer to one of {', '.join(map(repr, NORMALIZERS))} too."
            )
        else:
            getattr(self, part).set_params(**{rest: value})

    def _set_family(self, name: str, value) -> None:
        family, _, param = name.partition("__")
        given = [entry for entry in as_sequence(self.features) if getattr(entry, "family", None) == family]
        if family in self._named_families():
            make_family(family, **{param: value})
            self.feature_params = {**(self.feature_params or {}), name: value}
        elif given:
            given[0].set_params(**{param: value})
        else:
            there = [entry if isinstance(entry, str) else entry.family for entry in as_sequence(self.features)]
            check_name(f"features__{name}", family, there, "a family of this pipeline")

    def _named_families(self) -> list[str]:
        return [entry for entry in as_sequence(self.features) if isinstance(entry, str)]

    def _params_by_family(self) -> dict[str, dict[str, Any]]:
        split: dict[str, dict[str, Any]] = {}
        for key, value in (self.feature_params or {}).items():
            family, _, param = key.partition("__")
            split.setdefault(family, {})[param] = value
        return split


def _named_network(name, params, n_jobs, random_state):
    from histofeat.networks import ARCHITECTURES, CNNClassifier

    if name not in ARCHITECTURES:
        raise ValueError(f"{_no_pixel_head(name)} {known_names(name, ARCHITECTURES)}")
    classifier = CNNClassifier(name, n_jobs=n_jobs, random_state=random_state)
    for param in params or {}:
        check_name(f"head__{param}", param, classifier.get_params(), "a parameter of CNNClassifier")
    return classifier.set_params(**(params or {}))


def _no_pixel_head(head) -> str:
    return (
        "IDCPipeline.head: expected a classifier on images with features='pixels', such as CNNClassifier('cancernet') "
        f"or its name, got {head!r:.80}."
    )


def as_sequence(features) -> list:
    """List the entries of a ``features`` argument, families for estimators; a single entry is a list of one."""
    features = [features] if isinstance(features, str) or not isinstance(features, Sequence) else features
    remedy = f"Known names: {', '.join(sorted(FAMILIES))}."
    check_that("IDCPipeline.features", features, features, "at least one feature family", remedy)
    return [as_family(entry) for entry in features]
