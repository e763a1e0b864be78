"""`module:NAME`: a network given from Python, see `rela.register`."""

from rela.models.own_code.networks import (
    MODULE_PREFIX,
    OwnNetwork,
    registered,
    registered_names,
)
from rela.priors.prior import Prior, PriorRequest

PREFIX, METAVAR, EXAMPLE = MODULE_PREFIX, "", "module:NAME"
ABOUT = "a network given from Python"
EXTRA, LITERAL = "", ""
PACKAGES: dict[str, str] = {}


def names() -> list[str]:
    """Those that this process was given."""
    return registered_names()


def resolve(request: PriorRequest) -> Prior:
    """The network, with the preprocessing that it was given with, else ImageNet's at the requested size.

    Raises ChoiceError if this process was not given it, or if it does not take such images.
    """
    network = registered(request.name, as_prior=True)
    return built(network, request)


def built(network: OwnNetwork, request: PriorRequest) -> Prior:
    """The prior of a network; with `request.weights`, those of a file."""
    from rela.models.foreign_checkpoints import find_encoder
    from rela.models.preprocessing import preprocessing_for
    from rela.priors.prior import prior_with

    preprocessing = network.preprocessing or preprocessing_for(request.image_size)
    if request.resizes and request.image_size != preprocessing.crop:
        preprocessing = preprocessing.at(request.image_size)
    backbone, note = network.make(preprocessing.crop).eval(), ""
    if request.weights is not None:
        encoder = find_encoder(backbone, request.weights, [], request.trust_code, request.encoder)
        encoder.load(backbone, request.weights)
        note = encoder.note()
    name = network.identified.partition("#")[0]
    return prior_with(backbone, name, network.identified, preprocessing, request.weights, note)
