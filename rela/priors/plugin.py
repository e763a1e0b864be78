"""`plugin:NAME`: a prior of an installed package with an entry point in the group `rela.priors`."""

from rela.errors import ChoiceError, DataError, one_line
from rela.models.own_code.plugins import PREFIX as PLUGIN_PREFIX
from rela.models.own_code.plugins import PRIORS, identified, load_plugin, plugin_names
from rela.priors.prior import Prior, PriorRequest

PREFIX, METAVAR, EXAMPLE = PLUGIN_PREFIX, "NAME", "plugin:NAME"
ABOUT = "of an installed package with an entry point rela.priors"
EXTRA, LITERAL = "", ""
PACKAGES: dict[str, str] = {}


def names() -> list[str]:
    """The entry points of all installed packages."""
    return plugin_names(PRIORS)


def resolve(request: PriorRequest) -> Prior:
    """The network that the entry point's function returns, with its preprocessing.

    The full name of a model, as a run records it, is the prior with the run's weights. Raises ChoiceError
    for an unknown name, DataError for a plugin that fails.
    """
    from rela.models.own_code.networks import OwnNetwork, build_own, is_network
    from rela.models.transform import preprocessing_of
    from rela.priors.own_network import built

    if "#" in request.name:
        return built(OwnNetwork(request.name, lambda size: build_own(request.name, size)), request)
    name = identified(PRIORS, request.name)
    function = load_plugin(PRIORS, name)
    try:
        module, transform = function()
        if not is_network(module):
            raise TypeError(f"{type(module).__name__} is not a torch.nn.Module")
        preprocessing = preprocessing_of(transform)
    except ChoiceError:
        raise
    except Exception as error:  # code of others
        raise DataError(
            f"{name} fails ({type(error).__name__}: {one_line(str(error))}); expected a function that "
            "returns a network and its preprocessing"
        ) from error
    network = OwnNetwork(name, lambda size: module, preprocessing)
    return built(network, request)
