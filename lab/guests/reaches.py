"""Every provider that reaches machines which the lab did not build, by the name the inventory has for it."""

from __future__ import annotations

from collections.abc import Mapping

from lab.guests import ssh, vagrant
from lab.guests.provider import Reach
from lab.matrix import SSH, VAGRANT

REACHES: Mapping[str, Reach] = {SSH: ssh.reached, VAGRANT: vagrant.reached}
