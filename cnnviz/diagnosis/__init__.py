"""Find what is wrong with a model or its data: one module for each question."""

from cnnviz.diagnosis.census import FilterCensus, LayerCensus, filter_census
from cnnviz.diagnosis.changes import ModelChanges, compare_models
from cnnviz.diagnosis.diagnose import diagnose
from cnnviz.diagnosis.duplicates import Duplicates, find_duplicates
from cnnviz.diagnosis.findings import Check, Diagnosis, Finding
from cnnviz.diagnosis.inputs import InputReport, check_inputs
from cnnviz.diagnosis.labels import SuspectLabels, suspect_labels
from cnnviz.diagnosis.measures import calibration_bins, evidence_share, expected_calibration_error
from cnnviz.diagnosis.mistakes import Mistakes, confident_mistakes
from cnnviz.diagnosis.reliance import Reliance, reliance
from cnnviz.diagnosis.trust import MapTrust, map_trust
