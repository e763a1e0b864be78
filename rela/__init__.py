"""Cheaper self-supervised training with targets from a public model, as a library.

    import rela

    rela.convert("path/to/images")
    rela.embed(prior="resnet18")
    run = rela.train(epochs=100)
    features = rela.open_representations()

These are the commands of the command line as functions (`help(rela.train)`), from `rela.stages.api`, which is
imported on first use. The packages below are the method and its formats: images, betons, priors, targets,
views, algorithms, probes. They do not depend on command lines, workspaces or stages.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rela.stages.api import (
        clean_cache,
        convert,
        demo,
        describe,
        doctor,
        embed,
        evaluate,
        export,
        list_cache,
        list_priors,
        load_backbone,
        neighbors,
        open_representations,
        plan_recipe,
        preset,
        rank_priors,
        register,
        remove,
        report,
        resume,
        run_recipe,
        status,
        train,
        under_way,
        verify_cache,
    )

__all__ = [
    "clean_cache",
    "convert",
    "demo",
    "describe",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "list_cache",
    "list_priors",
    "load_backbone",
    "neighbors",
    "open_representations",
    "plan_recipe",
    "preset",
    "rank_priors",
    "register",
    "remove",
    "report",
    "resume",
    "run_recipe",
    "status",
    "train",
    "under_way",
    "verify_cache",
]


if not TYPE_CHECKING:  # type checkers must see that every other name is missing

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            import difflib

            close = [] if name.startswith("_") else difflib.get_close_matches(name, __all__, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}")
        from rela.stages import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
