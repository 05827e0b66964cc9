"""From a config to what the rules need: shards, paths, and the settings of each job.

Read by `workflow/rules/common.smk` when Snakemake plans; no job imports it.
"""

from luneta.plan.jobs import Plan
from luneta.plan.make import make_plan

__all__ = ["Plan", "make_plan"]
