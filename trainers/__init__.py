"""From raw events to embedding versions and releases."""

# Its settings of the process hold before any module here imports a third party.
import feature_repo as feature_repo
