"""Answers from the live release of a run; training code is never imported."""

# Its settings of the process hold before any module here imports a third party.
import feature_repo as feature_repo
