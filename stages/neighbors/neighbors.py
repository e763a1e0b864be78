"""`rela neighbors`: what is asked for, by cached representations."""

from pathlib import Path

from rela.errors import ChoiceError
from rela.options import part_of
from rela.pipeline import Say
from rela.stages import requests
from rela.stages.neighbors import duplicates, of_image, of_text, outliers
from rela.stages.neighbors.duplicates import Duplicates
from rela.stages.neighbors.of_image import Neighbors
from rela.stages.neighbors.outliers import Outliers
from rela.stages.settings import NeighborsSettings
from rela.stages.workspace.workspace import Workspace

_REQUIRES = {"threshold": "--duplicates", "k": "--outliers", "output": "--duplicates or --outliers"}


@requests.repeats_the_command("neighbors")
def neighbors(
    workspace: Workspace, request: requests.Neighbors, say: Say = print
) -> Neighbors | Duplicates | Outliers:
    """Find the images most similar to one or to a text, near-duplicates, or outliers of a data set.

    Raises ChoiceError unless exactly one of these is asked for, and for an option of another one; with the
    command to use if there are no representations.
    """
    settings, image = part_of(request, NeighborsSettings), request.image
    asked = {
        "IMAGE": image is not None,
        "--text": settings.text is not None,
        "--duplicates": settings.duplicates,
        "--outliers": settings.outliers,
    }
    chosen = [name for name, is_asked in asked.items() if is_asked]
    if len(chosen) != 1:
        raise ChoiceError(
            f"expected one of {', '.join(asked)}, found {' and '.join(chosen) or 'none'}; for example "
            "`rela neighbors --duplicates`"
        )
    for option, requires in _REQUIRES.items():
        if getattr(settings, option) is not None and chosen[0] not in requires:
            raise ChoiceError(f"--{option} requires {requires}, found {chosen[0]}; remove it")
    if image is not None:
        return of_image.nearest_to(workspace, Path(image), request, say)
    if settings.text is not None:
        return of_text.nearest_to(workspace, settings.text, request)
    find = duplicates.duplicates if settings.duplicates else outliers.outliers
    return find(workspace, request, say)


def format_result(result: Neighbors | Duplicates | Outliers) -> str:
    """In words and as a table."""
    if isinstance(result, Neighbors):
        return of_image.in_words(result)
    if isinstance(result, Duplicates):
        return duplicates.in_words(result)
    return outliers.in_words(result)
