"""A pylock.toml on standard input as a requirements file with hashes, one package a line.

uv's own requirements with hashes name the files of every platform, ten times as many.
pip does not install from a pylock.toml yet.
"""

import sys
import tomllib

for package in tomllib.load(sys.stdin.buffer)["packages"]:
    hashes = sorted({wheel["hashes"]["sha256"] for wheel in package["wheels"]})
    print(f"{package['name']}=={package['version']}", *(f"--hash=sha256:{each}" for each in hashes))
