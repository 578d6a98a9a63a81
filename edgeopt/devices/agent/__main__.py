"""`python AGENT session FOLDER` serves one user of a device, `python AGENT child` has one file."""

import sys

from edgeopt.devices.agent.child import child
from edgeopt.devices.agent.session import session

if __name__ == "__main__":
    sys.exit(child() if sys.argv[1] == "child" else session(sys.argv[2]))
