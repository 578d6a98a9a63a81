"""Devices on which files answer and are timed.

An agent that needs Python alone works there: `edgeopt.devices.agent`. A kind of device on which a program can be
started says how, as a `Link`, and `AgentDevice` does the rest.
"""

from edgeopt.devices.agent_device import AgentDevice, AgentSettings
from edgeopt.devices.link import Link

__all__ = ["AgentDevice", "AgentSettings", "Link"]
