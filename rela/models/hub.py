"""Weights from huggingface.co, or without a network from its local cache."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError

from rela.errors import UnavailableError

_TIMEOUT_SECONDS = 5


@contextmanager
def weights_from_hub(name: str, place: str) -> Iterator[None]:
    """Context in which timm and open_clip may download, or without a network use only the cache.

    Without it they retry for a minute when there is no network. An OSError inside becomes an
    UnavailableError with the next step: fetch `place` and pass it as --weights.
    """
    from huggingface_hub import constants

    before, reachable = constants.HF_HUB_OFFLINE, _reaches(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = before or not reachable
    try:
        yield
    except OSError as error:  # the network's, and huggingface_hub's
        reason = (
            (str(error).splitlines() or [type(error).__name__])[0]
            if reachable
            else f"{constants.ENDPOINT} cannot be reached"
        )
        raise UnavailableError(
            f"cannot download the weights of {name} ({reason}); on a machine with a network fetch "
            f"{place} and pass the file as --weights FILE"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _reaches(url: str) -> bool:
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except HTTPError:  # the server answered
        return True
    except OSError:
        return False
    return True
