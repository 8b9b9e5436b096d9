"""Write the reward model of the pipeline into a folder, unless it is there.

python jobs/pipeline/reward_model.py out/pipeline/reward-model
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.tiny_chat.reward_model import write_reward_model


def main() -> None:
    folder = Path(sys.argv[1])
    if not folder.exists():
        write_reward_model(folder.with_name(f"{folder.name}.partial")).rename(folder)


if __name__ == "__main__":
    main()
