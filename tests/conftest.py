"""For all tests: no model hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
