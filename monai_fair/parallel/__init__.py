"""Run one function over many subjects or seeds: here, in processes, or on a Ray cluster; a failure is a row.

Processes are joblib's (loky): they do not import the caller's main module, so that a plain script needs no guard.
Where each item has a process of its own they are forked from a server, and a script needs the guard.
Ray runs the same function on one machine or many, and is asked for by an address.
"""

from monai_fair.parallel.all_items import run_all, run_each
from monai_fair.parallel.ray_tasks import Cluster, read_cluster
from monai_fair.parallel.tasks import Outcome

__all__ = ["Cluster", "Outcome", "read_cluster", "run_all", "run_each"]
