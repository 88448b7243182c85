"""What a site says about a model that it is shown: how it does on the site's patients, as sums and counts."""

from collections.abc import Mapping

import numpy as np

from pathoml.errors import PackageError, RefusalCode, RefusedError
from pathoml.federated.guard import REPLICATES, models_of
from pathoml.federated.judging import calibration_sums, member_of, pair_sums, risks_of
from pathoml.federated.messages import Message
from pathoml.federated.method_settings import EvaluationSettings, RoundsSettings
from pathoml.federated.scoring import expected_events, files_in, package_at_site, problems_with
from pathoml.federated.setup import arrays_of, build_model, load_arrays_into
from pathoml.federated.training import settings_of
from pathoml.federated.workbench import Workbench, require_not_trained_on, scored_patients
from pathoml.infer import predict_package
from pathoml.mil.patients import select_patients
from pathoml.packages import package_of
from pathoml.train import follow_up, local_update
from pathoml.train_state import start_state
from pathoml.units import AnyArray, FloatArray

Answer = tuple[dict[str, AnyArray], dict[str, float]]


def evaluate(bench: Workbench, request: Message) -> Answer:
    """Judge the shared model on the site's test patients.

    Parameters
    ----------
    bench : Workbench
        The site at work.
    request : Message
        With the model.

    Returns
    -------
    tuple of dict
        Pairs in bootstrap samples; numbers that the plan asks for.
    """
    sent = models_of(request.arrays)
    bench.require_fit(sent)
    return _judged(bench, sent)


def personal(bench: Workbench, request: Message) -> Answer:
    """Fit the shared model to the site's own patients, keep it there, and judge that.

    Parameters
    ----------
    bench : Workbench
        The site at work.
    request : Message
        With the model.

    Returns
    -------
    tuple of dict
        As of `evaluate`.

    Raises
    ------
    RefusedError
        If the plan has no epochs for it.
    """
    in_use, sent, method, device = bench.ready(), models_of(request.arrays), bench.plan.method, bench.context.device
    bench.require_fit(sent)
    if not isinstance(method, RoundsSettings) or not method.personal_epochs:
        raise RefusedError("the plan has no personal epochs", RefusalCode.BAD_REQUEST)
    model = build_model(bench.plan, in_use.setup)
    load_arrays_into(model, sent)
    settings = settings_of(bench.plan).model_copy(update={"schedule": "constant", "warmup_epochs": 0})
    state = start_state(model.to(device), settings)
    for _ in range(method.personal_epochs):
        local_update(state, bench.patients(bench.data.train), in_use.objective, settings)
    own = arrays_of(state.model)
    bench.keep("personal.safetensors", own)
    return _judged(bench, own)


def calibrate(bench: Workbench, request: Message) -> Answer:
    """Add up what the network's mean risk, its spread and its baseline hazard are made of.

    Parameters
    ----------
    bench : Workbench
        The site at work.
    request : Message
        With the model.

    Returns
    -------
    tuple of dict
        Of `pathoml.federated.judging.calibration_sums`.
    """
    in_use, sent = bench.ready(), models_of(request.arrays)
    bench.require_fit(sent)
    data = bench.data
    # A few validation patients would stand in the difference from what was told of the training patients.
    fitted_on = (*data.train, *(data.validation if bench.enough(data.validation) else ()))
    return calibration_sums(member_of(bench.plan, in_use.setup, sent), data, bench.plan, bench.fewest_events, fitted_on)


def score(bench: Workbench, request: Message) -> Answer:
    """Score a package that was made elsewhere or earlier on the site's patients; nothing is trained.

    Parameters
    ----------
    bench : Workbench
        The site at work.
    request : Message
        With the files of the package.

    Returns
    -------
    tuple of dict
        As of `evaluate`, with the number of events that the package expected.

    Raises
    ------
    RefusedError
        If the plan scores none or another one, if it does not fit the site's data, or was trained on the patients.
    """
    plan, data, method = bench.plan, bench.data, bench.plan.method
    files = files_in(request.arrays)
    if not isinstance(method, EvaluationSettings) or files.digest != method.package:
        raise RefusedError(f"package {files.digest[:12]} is not what the plan has scored", RefusalCode.BAD_REQUEST)
    try:
        package = package_of(files, "the package that came")
    except PackageError as error:
        raise RefusedError(str(error), RefusalCode.BAD_REQUEST) from error
    if problems := problems_with(plan, package):
        raise RefusedError("; ".join(problems), RefusalCode.BAD_REQUEST)
    names = scored_patients(method, data)
    if bench.context.folder is not None:
        require_not_trained_on(bench.context.folder.parent, str(package.summary.get("plan", "")), names)
    if not bench.enough(names):
        return _nothing()
    own = names if method.patients == "all" else data.train
    adapted = package_at_site(package, plan, select_patients(data.cohort, data.features, own).features)
    told = predict_package(adapted, select_patients(data.cohort, data.features, names), device=bench.context.device)
    time_days, _ = follow_up(data.cohort, names)
    further = {"expected_events": expected_events(told, time_days)}
    return _pairs(bench, names, told.table["risk"].to_numpy(dtype=np.float64), further)


def _judged(bench: Workbench, model: Mapping[str, AnyArray]) -> Answer:
    names = bench.data.test
    if not bench.enough(names) or bench.plan.privacy is not None:
        return _nothing()
    risk = risks_of(member_of(bench.plan, bench.ready().setup, dict(model)), bench.data, names)
    return _pairs(bench, names, risk, {})


def _nothing() -> Answer:
    return {f"replicates.{name}": np.zeros(REPLICATES) for name in ("concordant", "comparable")}, {}


def _pairs(bench: Workbench, names: tuple[str, ...], risk: FloatArray, further: Mapping[str, float]) -> Answer:
    # Bootstrap samples are drawn with the system's own randomness, so that none can be drawn again elsewhere.
    arrays, numbers = pair_sums(*follow_up(bench.data.cohort, names), risk, np.random.default_rng())
    asked = bench.asked({**numbers, **further})
    # From its drawings an interval could be computed, which a site may not want to tell.
    untold = bench.context.limits.refused_metrics
    tells = {"concordant", "comparable"} <= asked.keys() and not {"concordance_low", "concordance_high"} & set(untold)
    return (arrays if tells else _nothing()[0]), asked
