"""The artefact store that a configuration names."""

from pathlib import Path

from exporters.models.remote import Remote
from exporters.models.signing import Signing
from exporters.models.store import Store
from router.config import Config


def open_store(config: Config) -> Store:
    """A folder, or an object store with its copy in the state folder. Raises ArtefactError where its keys, or a client
    of its scheme, are not there."""
    policy, where = config.artefact_policy, config.artefacts
    remote = Remote(where) if "://" in where else None
    root = Path(config.state) / "artefacts" if remote is not None else Path(where)
    return Store(root, remote=remote, signing=Signing(policy.signing), most_bytes=int(policy.max_gb * (1 << 30)))
