"""The real job under injected faults: `python -m tests.chaos` (make chaos) prints what each of them cost.

The parts: ground (what all builds stand on: S3 server, proxy, Ray nodes), driver and program (one driver
process and what its log tells), engines (simulated ones that obey orders), scene, faults, s3_faults, strikes
and leftovers (what is injected, and how its recovery shows), outputs (every row counted), builds and
scenarios (which faults meet which build), report (the table).
"""
