"""A week of 500 actors in virtual time: the real driver logic over virtual nodes, engines and files.

Real are Job, Dispatcher, Fleet, Ledger, OutputSync, the records of builds, runs and partitions, the manifest
and the end of a run. Virtual are the cluster, what happens on its nodes, and the bytes of the store. In
reading order: `scale` (how much of everything), `agenda` (virtual time), `prompts` (how many attempts rows
take), `worker` (one engine), `cluster` (nodes that leave, come back and are broken), `store`, `costs` (what
was lost to which fault), `world` (all of these for one driver), `life` (one actor), `actors` (what a job asks
for and hears), `drivers` (one driver after another until the build is complete), `report`.

Invariants: equal scales and seeds make equal weeks; nothing here waits in real time.
"""
