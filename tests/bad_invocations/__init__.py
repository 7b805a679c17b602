"""Commands that cannot be right, by subject; ``python tests/bad_invocations`` runs them."""

from collections.abc import Iterator

from bad_invocations import of_config, of_data, of_folders, of_labels, of_models, of_predictions
from bad_invocations.case import Case


def cases() -> Iterator[Case]:
    """All of them, by subject."""
    for subject in (of_config, of_data, of_folders, of_predictions, of_models, of_labels):
        yield from subject.cases()
