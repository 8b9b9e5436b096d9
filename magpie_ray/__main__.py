"""`python -m magpie_ray` is `magpie-ray`."""

from magpie_ray.cli.program import main

main()
