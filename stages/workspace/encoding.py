"""How images are stored: by the options of `rela convert`, or as in an existing data set."""

from dataclasses import fields, replace

from rela.data.beton.encoding import Encoding
from rela.options import check_options
from rela.sources.pixels import PixelRules, colour_of
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.dataset import DataSet


def encoding_of(dataset: DataSet) -> Encoding:
    """How the images of a data set were stored."""
    parameters, content = dataset.manifest.parameters, dataset.content
    known = {f.name for f in fields(ConvertSettings)}
    given = {k: v for k, v in parameters.items() if k in known and v is not None}
    if "alpha_on_white" in parameters:  # of version 1
        given["background"] = "white" if parameters["alpha_on_white"] else "none"
    settings = ConvertSettings(**given)
    check_options(settings)
    encoding = encoding_by(settings)
    rules = encoding.pixels
    bits = rules.bits if content.bits is None else content.bits
    float_bits = rules.float_bits if content.float_bits is None else content.float_bits
    return replace(encoding, pixels=PixelRules(rules.background, bits, float_bits))


def encoding_by(settings: ConvertSettings) -> Encoding:
    """How `settings` have images stored; raises ChoiceError for a colour that does not exist."""
    rules = PixelRules(colour_of(settings.background))
    if settings.bits is not None:
        rules = replace(rules, bits=settings.bits)
    shared = {f.name for f in fields(Encoding)} & {f.name for f in fields(settings)}
    return Encoding(**{name: getattr(settings, name) for name in shared}, pixels=rules)
