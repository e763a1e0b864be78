"""A data set by name, or a folder or another source of images, which becomes one."""

from collections.abc import Callable
from pathlib import Path

from pipeline.artifact import Artifact
from rela.errors import ChoiceError
from rela.sources.patterns import default_name
from stages.convert import convert, find_same_files, format_result, read_source
from stages.settings import ConvertSettings
from stages.workspace import Workspace, slug


def dataset_or_images(
    workspace: Workspace, which: str | Path | None, say: Callable[[str], None] = print
) -> Artifact:
    """The data set called `which`, or the only one; else the images in the source `which`, converted.

    A data set made from files with the same contents and the default options is taken as it is,
    whatever its name. Raises ChoiceError if neither is there, or the source's name is taken by others.
    """
    if which is None or workspace.has_dataset(str(which)):
        return workspace.dataset(None if which is None else str(which))
    source = Path(which)
    if not source.exists():
        if isinstance(which, Path) or "/" in which:
            raise ChoiceError(f"{which}: found nothing there, and no data set has that name")
        return workspace.dataset(which)  # says which there are
    settings = ConvertSettings()
    found = find_same_files(workspace, read_source(source, settings), settings)
    if found is not None:
        say(f"the images in {source} are data set {found.name}")
        return found
    name = slug(default_name(source))
    if workspace.has_dataset(name):
        raise ChoiceError(
            f"{workspace.datasets_dir / name} was made from other images than {source}, or with other "
            f"options; embed it by its name, {name}, or convert these under another: `rela convert "
            f"{source} --name NAME`"
        )
    result = convert(workspace, source, settings, say=say)
    say(format_result(result))
    return result.artifact
