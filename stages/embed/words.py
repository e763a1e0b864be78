"""What is said of representations that were made: their shape, where they are, what to type next."""

from pathlib import Path

from rela.stages.display import next_command
from rela.stages.embed.embed import row_order
from rela.stages.embed.results import EmbedResult
from rela.stages.priors.again import embed_command
from rela.stages.priors.find import shown_name
from rela.stages.priors.records import priors_of
from rela.stages.settings import EmbedSettings
from rela.stages.snippets import pasteable, representations_snippet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace


def format_result(result: EmbedResult) -> str:
    """The result and its path."""
    artifact = result.artifact
    if artifact is None:
        return _shard_is_done(result)
    content, (rows, width) = artifact.content, artifact.content.shape
    what = f"{rows:,} × {width} representations of data set {content.dataset} ({content.split})"
    if result.cached:
        return f"{what} already exist: {artifact.path}"
    if result.num_embedded < artifact.content.shape[0] // (content.crops or 1):
        # reused, or by other processes, an interrupted call, or with another layer
        return f"{what}: {artifact.path}, {result.seconds:.1f} s"
    rate = result.num_embedded / result.seconds
    return f"{what}: {artifact.path}, {result.seconds:.1f} s, {rate:,.0f} images/s"


def format_maps(result: EmbedResult) -> str:
    """The maps and their path."""
    artifact = result.artifact
    if artifact is None:
        return _shard_is_done(result, " of the maps")
    shape = " × ".join(f"{each:,}" for each in (artifact.content.shape[0], *artifact.content.map))
    what = f"{shape} maps of data set {artifact.content.dataset} ({artifact.content.split})"
    return f"{what}{' already exist' if result.cached else ''}: {artifact.path}"


def _shard_is_done(result: EmbedResult, of_what: str = "") -> str:
    """Its images may have been embedded beside those of another layer."""
    count = f" ({result.num_embedded:,} images)" if result.num_embedded else ""
    return f"this shard{of_what} is done{count}; other shards still work"


def format_location(
    artifact: Representations,
    names: Path,
    was_there: bool,
    maps: Representations | None = None,
) -> list[str]:
    """Paths of features and names, and the code that reads both, once; and the next command, with `maps`."""
    lines, num_shards = list[str](), len(artifact.content.shards)
    if not was_there:
        features = (
            f"{artifact.path}/*.h5, one for each of {num_shards:,} shards, with its names in a .csv"
        )
        lines = [
            f"features: {features if num_shards else artifact.file} ({row_order(artifact.content.crops)})",
            f"names: {names}, columns index and path",
            pasteable("read them with:", representations_snippet(artifact, names)),
        ]
    if num_shards:
        return [*lines, next_command("priors", "rank", artifact.content.dataset)]
    workspace, content = Workspace.around(artifact), artifact.content
    dataset = workspace.dataset(names.parent.name)
    trained_on = workspace.representations(dataset.images_sha256())
    same_prior = [each for each in trained_on if each.prior.key() == artifact.prior.key()]
    if same_prior:  # of several, such as with crops and without, the name of this one
        its_own = len(same_prior) > 1 and artifact.name in [each.name for each in same_prior]
        name = artifact.name if its_own else shown_name(artifact)
        learns = ["--prior", name, *_options_of(workspace, maps)]
        lines.append(next_command("train", content.dataset, *learns))
    else:
        how = EmbedSettings(crops=content.crops, dtype=artifact.dtype)
        known = priors_of(artifact)
        lines.append(f"next: `{embed_command(workspace, dataset, known, how)}`")
    return lines


def _options_of(workspace: Workspace, maps: Representations | None) -> list[str]:
    """Options of a training that learns from the maps, too; named if there are others of this layer."""
    if maps is None:
        return []
    others = workspace.maps(maps.images_sha256)
    same = [
        m
        for m in others
        if m.prior.key() == maps.prior.key() and m.content.crops == maps.content.crops
    ]
    return ["--dense", "1", *(["--maps", maps.name] if len(same) > 1 else [])]
