"""All mutants, those of the base model first."""

from mutants_decoding import DECODING_MUTANTS
from mutants_families import FAMILY_MUTANTS
from mutants_mixers import MIXER_MUTANTS
from mutants_model import MODEL_MUTANTS
from mutants_multilabel import MULTILABEL_MUTANTS
from mutants_muon import MUON_MUTANTS
from mutants_training import TRAINING_MUTANTS

BASE_MUTANTS = (*MODEL_MUTANTS, *TRAINING_MUTANTS, *DECODING_MUTANTS)
ALL_MUTANTS = (*BASE_MUTANTS, *FAMILY_MUTANTS, *MIXER_MUTANTS, *MULTILABEL_MUTANTS, *MUON_MUTANTS)
