"""The cost of a build before it runs, for the command `plan`.

Read in this order: plan (the command's fields), forecast (which figures count), estimate (the arithmetic),
gpus (data sheets), sampler (a measurement on real engines, over the coordinator's Actors).
Invariants: planning writes nothing to an output; an unmeasured figure is a range and reports its assumptions.
"""
