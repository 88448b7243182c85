"""A real slide through extraction, prediction and heatmap, as scripts/try_real_slide.py does it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathoml.bags import read_bag
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.pipeline.predicting import PredictRequest, draw_maps, predict
from pathoml.pipeline.stages import StageContext

pytestmark = pytest.mark.xdist_group("small_cohort")


@pytest.fixture(scope="module")
def request_for(data_dir: Path, finished, tmp_path_factory: pytest.TempPathFactory) -> PredictRequest:
    slide = data_dir / "slides" / "CMU-1-Small-Region.svs"
    output = tmp_path_factory.mktemp("real")
    return PredictRequest(finished.result.folder.package, (slide,), output, impute_covariates=True)


def test_real_slide_is_tiled_at_its_native_resolution_and_scored(request_for: PredictRequest):
    predictions, outcomes = predict(request_for, StageContext())
    header = read_bag(request_for.output / "bags" / "CMU-1-Small-Region.h5").header
    assert outcomes[0].status == "done"
    assert header.mpp_read == (0.499, 0.499)
    assert np.isfinite(predictions.table["risk"]).all()
    assert (np.diff(predictions.survival, axis=1) <= 0).all()


def test_real_slide_gets_its_maps(request_for: PredictRequest):
    drawn, _ = draw_maps(request_for, StageContext(), HeatmapSettings())
    for path in drawn:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 10


def test_slide_without_mpp_is_refused_with_what_to_do(request_for: PredictRequest, data_dir: Path, tmp_path: Path):
    slide = data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    request = PredictRequest(request_for.package, (slide,), tmp_path, impute_covariates=True)
    with pytest.raises(ValueError, match="give the right value in the manifest's column mpp"):
        predict(request, StageContext())


def test_slide_without_mpp_is_scored_with_the_manifests(request_for: PredictRequest, data_dir: Path, tmp_path: Path):
    slide = data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    manifest = tmp_path / "slides.csv"
    manifest.write_text(f"slide_id,path,patient_id,mpp\nhnsc,{slide},TCGA-CR-7395,0.5\n")
    request = PredictRequest(request_for.package, (manifest,), tmp_path, impute_covariates=True)
    predictions, _ = predict(request, StageContext())
    assert predictions.table["patient_id"].tolist() == ["TCGA-CR-7395"]
