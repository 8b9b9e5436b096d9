"""The real job under injected faults: `python -m tests.chaos` (make chaos) prints the cost of each fault.

The parts: ground (S3 server, proxy and Ray nodes of all builds), driver and program (one driver process, and
the reader of its log), engines (simulated ones that obey orders), scene, faults, s3_faults, strikes, hangs,
tampering and leftovers (the injections and their recoveries), jobs (what a build runs), outputs (counts every
row), builds and scenarios (which faults meet which build), report (the table), and week (500 actors for seven
days in virtual time). driver and builds read the product's log lines: reword these together.
"""
