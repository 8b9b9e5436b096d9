"""The job of a config as a file, for Ray's job submission: `magpie-ray generate`, `answer` or `score`.

ray job submit --working-dir . -- python jobs/generate.py jobs/configs/demo.yaml output.path=s3://BUCKET/demo
ray job submit --working-dir . -- python jobs/generate.py answers.yaml

A config with `columns` is that of `score`, another one with `source` that of `answer`.
"""

import sys
from pathlib import Path

# In a submitted working directory the package need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from magpie_ray.cli.program import main

if __name__ == "__main__":
    sys.argv[1:1] = ["job"]
    main()
